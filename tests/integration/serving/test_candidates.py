"""Candidates on real Kafka and Redis: from a published item to its answer."""

import re
import statistics
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from kafka import KafkaProducer

from headwater.client import HeadwaterClient
from headwater.dead_letters_cli import read_dead_letters
from headwater.events import CandidateRequest, UserCandidates
from headwater.names import CANDIDATE_REQUESTS, CANDIDATES
from headwater.producer import EngagementProducer
from headwater.settings import Settings
from tests.integration.serving.catalogue import ITEMS, NOW_MS, engage, ids
from tests.services import poll
from tests.system import Server, records_of


def test_candidates_follow_engagements_deliveries_and_items(
    system: tuple[Settings, Server], client: HeadwaterClient
) -> None:
    settings, server = system
    first = client.candidates("ann", "news", k=100)
    assert first.cold_start
    assert ids(first) == {f"i{number}" for number in range(0, ITEMS, 3)}
    assert first.freshness_ms is not None and first.freshness_ms < 300_000
    assert first.bundle_version == first.generation == "v1"
    assert client.candidates("ann", "a/b é", k=100).candidates

    engage(settings, "ann", [0, 3])
    poll(
        lambda: ids(client.candidates("ann", "news", k=100)) == ids(first) - {"i0", "i3"},
        30,
        "engaged items are left out",
    )
    assert not client.candidates("ann", "news", k=100).cold_start
    poll(lambda: client.candidates("ann", "news").watermark is not None, 30, "activity is followed")
    assert ids(client.candidates("ann", "news", k=100, include_engaged=True)) == ids(first)
    assert "i6" not in ids(client.candidates("ann", "news", k=100, exclude=["i6"]))
    with EngagementProducer(settings) as producer:
        producer.send_delivery(
            {"delivery_id": "d", "user_id": "ann", "item_ids": ["i9"], "delivered_at": NOW_MS, "topic": "news"}
        )
        producer.delete_item("i12")
    poll(
        lambda: not {"i9", "i12"} & ids(client.candidates("ann", "news", k=100)),
        30,
        "delivered and deleted items are left out",
    )
    for _ in range(3):
        engage(settings, f"crowd{time.time_ns()}", [15])
    poll(
        lambda: client.candidates("bob", "news", k=1).candidates[0].item_id == "i15", 30, "what is popular comes first"
    )
    young = client.candidates("bob", "news", k=100, max_age_s=10)
    assert 0 < len(young.candidates) < 10
    assert len(client.candidates("bob", "news", k=100, relevance="off").candidates) > 50
    user = server.get("/v1/users/ann").json()
    assert [past["item_id"] for past in user["history"]] == ["i3", "i0"]
    assert user["delivered"] == ["i9"]


def test_what_others_engaged_with_next_scores_higher(system: tuple[Settings, Server], client: HeadwaterClient) -> None:
    settings, _ = system
    engage(settings, "eve", [31])
    for number in range(4):
        engage(settings, f"reader{number}", [31, 34])

    def score(user: str) -> float:
        scores = {each.item_id: each.score for each in client.candidates(user, "sport", k=100).candidates}
        return scores["i34"] - scores["i37"]

    poll(lambda: score("eve") > score("nobody-yet") + 0.01, 30, "co-visitation counts")


def test_a_new_item_is_retrievable_at_once(system: tuple[Settings, Server], client: HeadwaterClient) -> None:
    settings, _ = system
    waits_ms = []
    for number in range(20):
        started = time.perf_counter()
        item = {"item_id": f"new{number}", "topics": ["sport"], "published_at": NOW_MS}
        assert httpx.post(f"{settings.serving_url}/v1/items", json=item).status_code == 202
        while item["item_id"] not in ids(client.candidates("u", "sport", k=200)):
            assert time.perf_counter() - started < 10
        waits_ms.append((time.perf_counter() - started) * 1000)
    print(f"published to retrievable: median {statistics.median(waits_ms):.0f} ms, max {max(waits_ms):.0f} ms")
    assert statistics.median(waits_ms) < 500


def test_a_restarted_server_answers_as_before(system: tuple[Settings, Server], client: HeadwaterClient) -> None:
    settings, server = system
    first = ids(client.candidates("dora", "news", k=100))
    engage(settings, "dora", [24, 27])
    poll(lambda: ids(client.candidates("dora", "news", k=100)) == first - {"i24", "i27"}, 30, "engagements count")
    poll(
        lambda: {"i24", "i27"} <= {each.item_id for each in client.candidates("bob", "news", k=5).candidates},
        30,
        "what dora engaged with is popular",
    )
    before = client.candidates("bob", "news", k=100)
    snapshots = settings.state_dir / "snapshots"
    poll(lambda: list(snapshots.glob("*/v1/*/manifest.json")), 30, "a snapshot is written")
    server.kill()
    server.start()
    server.wait_ready()
    after = client.candidates("bob", "news", k=100)
    assert [each.item_id for each in after.candidates] == [each.item_id for each in before.candidates]
    assert [each.score for each in after.candidates] == pytest.approx(
        [each.score for each in before.candidates], abs=1e-4
    )
    assert "from a snapshot" in server.output()


def test_candidate_requests_through_kafka(system: tuple[Settings, Server]) -> None:
    settings, _ = system
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    request = CandidateRequest(request_id="r1", topic="news", user_ids=("a", "b"), k=3)
    for value in (request.to_wire(), b"{broken", request.model_copy(update={"topic": "newz"}).to_wire()):
        producer.send(settings.names.topic(CANDIDATE_REQUESTS), value=value).get(10)
    producer.close()
    records = records_of(settings, CANDIDATES, count=2, wait_s=20.0)
    answers = [UserCandidates.model_validate_json(record.value) for record in records]
    assert sorted(answer.user_id for answer in answers) == ["a", "b"]
    assert all(len(answer.candidates) == 3 and answer.request_id == "r1" for answer in answers)
    poll(
        lambda: sorted(letter.reason for letter in read_dead_letters(settings)) == ["malformed-json", "unknown-topic"],
        20,
        "impossible requests are dead letters",
    )


def shown(url: str, profile: Path) -> str:
    """Return what a browser that reaches nothing but this machine makes of a page."""
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --no-first-run"
    alone = f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    done = subprocess.run(
        ["chromium", *flags.split(), *alone, "--virtual-time-budget=4000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_page_shows_the_live_generation_in_a_browser(system: tuple[Settings, Server], tmp_path: Path) -> None:
    settings, _ = system
    page = shown(settings.serving_url, tmp_path)
    assert '<dd id="live">v1</dd>' in page
    assert ">ready</span>" in page
    assert '<td>v1</td><td class="number">' in page
    assert 'value="news"' in page


def test_the_http_interface_is_described_without_the_internet(system: tuple[Settings, Server], tmp_path: Path) -> None:
    settings, _ = system
    assert 'data-path="/v1/candidates"' in shown(f"{settings.serving_url}/docs", tmp_path)


def test_the_page_needs_nothing_but_this_server(system: tuple[Settings, Server]) -> None:
    _, server = system
    page = server.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert not any(word in page.text for word in ("http://", "https://", "@import", "src="))
    for path in set(re.findall(r"/v1/[a-z]+(?=\")", page.text)):
        assert server.get(path).status_code == 200, path
    server.get("/v1/topics/news/candidates", user_id="u")
    status = server.get("/v1/status").json()
    named = set(re.findall(r"\bstatus\.([a-z_0-9]+)", page.text))
    assert {"live", "generations", "queries", "latency_p50_ms", "lag_records"} <= named <= set(status)
    assert status["following"] and status["responding"]
    schema = server.get("/openapi.json").json()
    assert {"/v1/candidates", "/v1/engagements", "/v1/items"} <= set(schema["paths"])

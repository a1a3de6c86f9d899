"""The server on real Kafka and Redis: from a published item to its answer, faults, restarts, rotation."""

import csv
import json
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from kafka import KafkaConsumer, KafkaProducer

from headwater.client import HeadwaterClient
from headwater.dead_letters_cli import read_dead_letters
from headwater.events import CandidateRequest, UserCandidates
from headwater.names import CANDIDATE_REQUESTS, CANDIDATES
from headwater.producer import EngagementProducer
from headwater.query_load import QueryLoad
from headwater.settings import Settings
from headwater.topics import ensure_topics
from tests.bundles import make_bundle
from tests.services import poll
from tests.system import Process, Server, headwater, with_server_port

NOW_MS = 1_700_000_000_000
TOPICS = ["news", "sport", "a/b é"]
ITEMS = 60


@pytest.fixture
def installation(settings: Settings) -> Settings:
    settings = with_server_port(settings).model_copy(update={"clock": "watermark", "snapshot_every_s": 1.0})
    ensure_topics(settings)
    make_bundle(settings.model_dir, "v1", TOPICS)
    make_bundle(settings.model_dir, "v2", TOPICS, seed=1)
    return settings


@pytest.fixture
def system(installation: Settings) -> Iterator[tuple[Settings, Server]]:
    """A stream worker and a server with 60 items, v1 live."""
    with Process(installation, "stream"), Server(installation) as server:
        publish(installation)
        assert headwater(installation, "index", "build", "v1").returncode == 0
        promoted = headwater(installation, "index", "promote", "v1")
        assert promoted.returncode == 0, promoted.stderr
        server.wait_ready()
        yield installation, server


@pytest.fixture
def client(system: tuple[Settings, Server]) -> Iterator[HeadwaterClient]:
    """A client of the system's server."""
    with HeadwaterClient(system[0].serving_url) as client:
        yield client


def publish(settings: Settings) -> None:
    with EngagementProducer(settings) as producer:
        for number in range(ITEMS):
            topic = TOPICS[number % len(TOPICS)]
            producer.send_item({"item_id": f"i{number}", "topics": [topic], "published_at": NOW_MS - number * 1000})


def engage(settings: Settings, user: str, items: list[int]) -> None:
    with EngagementProducer(settings) as producer:
        for number in items:
            producer.send(
                {
                    "event_id": f"{user}-{number}",
                    "user_id": user,
                    "item_id": f"i{number}",
                    "occurred_at": NOW_MS + number,
                }
            )


def ids(answer: UserCandidates) -> set[str]:
    return {candidate.item_id for candidate in answer.candidates}


def test_candidates_follow_engagements_deliveries_and_items(
    system: tuple[Settings, Server], client: HeadwaterClient
) -> None:
    settings, server = system
    first = client.candidates("ann", "news", k=100)
    assert first.cold_start
    assert ids(first) == {f"i{number}" for number in range(0, ITEMS, 3)}
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
    assert ids(client.candidates("ann", "news", k=100, engaged=True)) == ids(first)
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


BAD_REQUESTS: dict[str, tuple[str, str, object, int]] = {
    "unknown topic": ("GET", "/v1/topics/newz/candidates?user_id=u", None, 404),
    "no user": ("GET", "/v1/topics/news/candidates", None, 422),
    "k zero": ("GET", "/v1/topics/news/candidates?user_id=u&k=0", None, 422),
    "k huge": ("GET", "/v1/topics/news/candidates?user_id=u&k=1000000", None, 422),
    "k a word": ("GET", "/v1/topics/news/candidates?user_id=u&k=many", None, 422),
    "relevance unknown": ("GET", "/v1/topics/news/candidates?user_id=u&relevance=maybe", None, 422),
    "age negative": ("GET", "/v1/topics/news/candidates?user_id=u&max_age_s=-1", None, 422),
    "user with control character": ("GET", "/v1/topics/news/candidates?user_id=a%0Ab", None, 422),
    "bulk not JSON": ("POST", "/v1/candidates", b"{not json", 422),
    "bulk no users": ("POST", "/v1/candidates", {"user_ids": [], "topics": ["news"]}, 422),
    "bulk unknown field": ("POST", "/v1/candidates", {"user_ids": ["u"], "topics": ["news"], "kk": 1}, 422),
    "bulk unknown topic": ("POST", "/v1/candidates", {"user_ids": ["u"], "topics": ["none"]}, 404),
    "engagement incomplete": ("POST", "/v1/engagements", {"user_id": "u"}, 422),
    "engagements not objects": ("POST", "/v1/engagements", [1, 2], 422),
    "engagements a word": ("POST", "/v1/engagements", "hello", 422),
    "engagements too many": ("POST", "/v1/engagements", [{}] * 1001, 413),
    "body huge": ("POST", "/v1/items", b" " * (17 * 1024 * 1024), 413),
    "item with text time": ("POST", "/v1/items", {"item_id": "i", "topics": [], "published_at": "now"}, 422),
    "unknown item": ("GET", "/v1/items/nothing", None, 404),
    "unknown generation": ("POST", "/v1/generations/v9/verify", None, 404),
    "unknown path": ("GET", "/v2/anything", None, 404),
    "wrong method": ("DELETE", "/v1/topics", None, 405),
}


def test_bad_requests_get_one_json_shape(system: tuple[Settings, Server]) -> None:
    settings, server = system
    for name, (method, path, body, status) in BAD_REQUESTS.items():
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        response = httpx.request(
            method, settings.serving_url + path, content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == status, (name, response.text)
        assert {"error", "message"} <= set(response.json()), name
    near = server.get("/v1/topics/newz/candidates", user_id="u").json()
    assert near["near"] == ["news"]
    assert "Traceback" not in server.output()
    assert server.get("/health/ready").status_code == 200
    metrics = server.get("/metrics").text
    assert 'headwater_index_items{version="v1"} 60.0' in metrics


def test_a_restarted_server_answers_as_before(system: tuple[Settings, Server], client: HeadwaterClient) -> None:
    settings, server = system
    engage(settings, "ann", [0, 3])
    poll(lambda: len(client.candidates("ann", "news", k=100).candidates) == 18, 30, "engagements count")
    before = client.candidates("bob", "news", k=100)
    snapshots = settings.state_dir / "snapshots"
    poll(lambda: list(snapshots.glob("*/v1/*/manifest.json")), 30, "a snapshot is written")
    server.kill()
    server.start()
    server.wait_ready()
    assert client.candidates("bob", "news", k=100).candidates == before.candidates
    assert "from a snapshot" in server.output()


def test_rotation_under_queries(system: tuple[Settings, Server]) -> None:
    settings, _ = system
    users = [f"u{number}" for number in range(50)]
    with QueryLoad(settings.serving_url, users, ["news", "sport"]) as load:
        assert "60 items embedded" in headwater(settings, "index", "build", "v2").stdout
        assert "would become live" in headwater(settings, "index", "promote", "v2", "--dry-run").stdout
        assert headwater(settings, "index", "promote", "v2").returncode == 0
        load.wait_for("v2")
        assert "v1 is live" in headwater(settings, "index", "rollback").stdout
        after = load.versions["v1"]
        poll(lambda: load.versions["v1"] > after + 20, 30, "v1 answers again")
    assert load.failed == 0
    assert set(load.versions) == {"v1", "v2"}
    listed = json.loads(headwater(settings, "index", "list", "--json").stdout)
    assert listed["alias"]["version"] == "v1"
    assert [row["verified"] for row in listed["generations"]] == [True, True]
    assert (
        headwater(settings, "index", "prune", "--keep", "1", "--json").stdout.strip()
        == '{"pruned": [], "dry_run": false}'
    )


def test_broken_bundles_are_refused(system: tuple[Settings, Server]) -> None:
    settings, server = system
    (settings.model_dir / "v2" / "user_tower.onnx").write_bytes(b"broken")
    refused = headwater(settings, "index", "build", "v2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "user_tower.onnx is not the file that was published" in refused.stderr
    for arguments in (("build", "v9"), ("verify", "v9"), ("promote", "v9")):
        gone = headwater(settings, "index", *arguments)
        assert gone.returncode == 1
        assert len(gone.stderr.strip().splitlines()) == 1, gone.stderr
    make_bundle(settings.model_dir, "v3", TOPICS, dimension=4)
    assert headwater(settings, "index", "build", "v3").returncode == 0
    manifest = settings.model_dir / "v3" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"feature_schema": "', '"feature_schema": "other'))
    verified = headwater(settings, "index", "verify", "v3")
    assert verified.returncode == 1
    assert "feature schema" in verified.stdout
    promoted = headwater(settings, "index", "promote", "v3")
    assert promoted.returncode == 1
    assert "falls short" in promoted.stderr
    assert server.get("/v1/generations").json()["alias"]["version"] == "v1"


def test_notification_job_from_file_to_file(system: tuple[Settings, Server], tmp_path: Path) -> None:
    settings, _ = system
    users = tmp_path / "users.csv"
    users.write_text("user_id,name\n" + "".join(f"u{number},x\n" for number in range(700)))
    for suffix in ("csv", "jsonl", "parquet"):
        output = tmp_path / f"out.{suffix}"
        arguments = ("notify", "--topic", "news", "--users", str(users), "--k", "5", "--output", str(output), "--json")
        done = headwater(settings, *arguments)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["users"] == 700
        assert output.is_file()
    output = tmp_path / "out.csv"
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2])
    resumed = headwater(
        settings, "notify", "--topic", "news", "--users", str(users), "--k", "5", "--output", str(output), "--json"
    )
    assert 300 < json.loads(resumed.stdout)["resumed_after"] < 400
    with output.open() as rows:
        assert Counter(row["user_id"] for row in csv.DictReader(rows)) == {f"u{number}": 5 for number in range(700)}
    mistakes = {
        "no such file": ("--users", str(tmp_path / "none.csv"), "--output", str(output)),
        "extension must be": ("--users", str(users), "--output", str(tmp_path / "out.xml")),
        "no column user_id": ("--users", str(tmp_path / "bad.csv"), "--output", str(output)),
    }
    (tmp_path / "bad.csv").write_text("id\n1\n")
    for message, options in mistakes.items():
        failed = headwater(settings, "notify", "--topic", "news", *options)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1


def test_candidate_requests_through_kafka(system: tuple[Settings, Server]) -> None:
    settings, _ = system
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    request = CandidateRequest(request_id="r1", topic="news", user_ids=("a", "b"), k=3)
    for value in (request.to_wire(), b"{broken", request.model_copy(update={"topic": "newz"}).to_wire()):
        producer.send(settings.names.topic(CANDIDATE_REQUESTS), value=value).get(10)
    producer.close()
    consumer = KafkaConsumer(
        settings.names.topic(CANDIDATES),
        bootstrap_servers=settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=20_000,
    )
    answers = [UserCandidates.model_validate_json(record.value) for record, _ in zip(consumer, range(2), strict=False)]
    consumer.close()
    assert sorted(answer.user_id for answer in answers) == ["a", "b"]
    assert all(len(answer.candidates) == 3 and answer.request_id == "r1" for answer in answers)
    poll(
        lambda: sorted(letter.reason for letter in read_dead_letters(settings)) == ["malformed-json", "unknown-topic"],
        20,
        "impossible requests are dead letters",
    )


def test_the_page_shows_the_live_generation_in_a_browser(system: tuple[Settings, Server], tmp_path: Path) -> None:
    settings, _ = system
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}"]
        + ["--virtual-time-budget=4000", "--dump-dom", settings.serving_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert '<dd id="live">v1</dd>' in done.stdout
    assert ">ready</span>" in done.stdout
    assert '<td class="number">60</td>' in done.stdout
    assert 'value="news"' in done.stdout


def test_overload_is_refused_quickly(installation: Settings) -> None:
    installation = installation.model_copy(update={"serving_max_concurrency": 1})
    with Server(installation) as server:
        assert server.get("/v1/topics/news/candidates", user_id="u").status_code == 503, "nothing is live yet"
        assert "headwater train" in server.get("/v1/topics/news/candidates", user_id="u").json()["message"]
        ready = server.get("/health/ready")
        assert (ready.status_code, ready.json()["error"]) == (503, "not-ready")


def test_a_taken_port_is_one_line(installation: Settings) -> None:
    with Server(installation):
        second = headwater(installation, "serve")
    assert second.returncode == 2
    assert "choose another --port" in second.stderr
    assert "Traceback" not in second.stderr

"""The server while something is wrong: overload, strange requests, services that die, its own death."""

import json
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from kafka import KafkaConsumer, KafkaProducer

from headwater.client import HeadwaterClient
from headwater.errors import HeadwaterError
from headwater.events import CandidateRequest, UserCandidates
from headwater.names import CANDIDATE_REQUESTS, CANDIDATES, ENGAGEMENTS
from headwater.producer import EngagementProducer
from headwater.settings import Settings
from headwater.topics import ensure_topics
from tests.bundles import make_bundle
from tests.services import KafkaService, RedisService, poll
from tests.system import Process, Server, headwater, with_server_port

NOW_MS = 1_700_000_000_000
USERS = [f"user-{number}" for number in range(20_000)]
QUERY = "/v1/topics/news/candidates"


@pytest.fixture(scope="module")
def system(
    kafka: KafkaService, redis_server: RedisService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, Server]]:
    """One system for all tests here: each leaves it answering."""
    settings = prepared(
        Settings.model_validate(
            {
                "kafka_bootstrap_servers": kafka.bootstrap_servers,
                "redis_url": redis_server.url,
                "namespace": f"t{uuid.uuid4().hex[:12]}",
                "model_dir": tmp_path_factory.mktemp("onnx"),
                "state_dir": tmp_path_factory.mktemp("var"),
            }
        )
    )
    with Process(settings, "stream"), Server(settings) as server:
        promote(settings, server)
        yield settings, server


def prepared(settings: Settings) -> Settings:
    settings = with_server_port(settings).model_copy(update={"clock": "watermark", "serving_max_concurrency": 2})
    ensure_topics(settings)
    make_bundle(settings.model_dir, "v1", ["news"])
    return settings


def promote(settings: Settings, server: Server) -> None:
    with EngagementProducer(settings) as producer:
        for number in range(50):
            producer.send_item({"item_id": f"i{number}", "topics": ["news"], "published_at": NOW_MS})
    assert headwater(settings, "index", "build", "v1").returncode == 0
    promoted = headwater(settings, "index", "promote", "v1")
    assert promoted.returncode == 0, promoted.stderr
    server.wait_ready()


def engagement(event_id: str) -> dict[str, object]:
    return {"event_id": event_id, "user_id": f"u-{event_id}", "item_id": "i1", "occurred_at": NOW_MS}


def answers(server: Server) -> int:
    try:
        return server.get(QUERY, user_id="u", k=3).status_code
    except httpx.TransportError:
        return 0


def test_overload_is_refused_while_the_accepted_are_answered(system: tuple[Settings, Server]) -> None:
    settings, server = system
    body = {"user_ids": USERS, "topics": ["news"], "k": 50}
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=settings.serving_url, timeout=60) as client:
        begun = threading.Barrier(3)

        def read_a_large_answer() -> int:
            with client.stream("POST", "/v1/candidates", json=body) as response:
                lines = response.iter_lines()
                next(lines)
                begun.wait(30)
                return 1 + sum(1 for _ in lines)

        large = [pool.submit(read_a_large_answer) for _ in range(2)]
        begun.wait(30)
        refused = server.get(QUERY, user_id="u")
        assert server.get("/health/live").status_code == 200, "only queries are refused"
        assert [each.result() for each in large] == [len(USERS), len(USERS)]
    assert (refused.status_code, refused.json()["error"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert "headwater_refused_total 1.0" in server.get("/metrics").text
    assert server.get("/v1/status").json()["in_flight"] == 0
    assert answers(server) == 200


def raw(settings: Settings, request: bytes) -> bytes:
    with socket.create_connection((settings.serving_host, settings.serving_port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


def test_strange_requests_are_faults_of_the_caller(system: tuple[Settings, Server]) -> None:
    settings, server = system
    json_header = {"content-type": "application/json"}
    with httpx.Client(base_url=settings.serving_url) as client:

        def status(path: str, content: bytes) -> tuple[int, str]:
            response = client.post(path, content=content, headers=json_header)
            return response.status_code, response.json()["error"]

        chunked = client.post("/v1/items", content=(b" " * 65_536 for _ in range(20)), headers=json_header)
        assert (chunked.status_code, chunked.json()["error"]) == (413, "too-large")
        assert status("/v1/items", b" " * 1_100_000) == (413, "too-large")
        assert status("/v1/candidates", b" " * 1_100_000) == (422, "invalid")
        assert status("/v1/engagements", b"[" * 100_000)[0] in (400, 422)
        assert status("/v1/engagements", b'{"event_id": "\xff"}')[0] in (400, 422)
        assert status("/v1/engagements", b"")[0] == 422
        nan = b'{"item_id": "i", "topics": [], "published_at": 1700000000000, "attributes": {"a": NaN}}'
        assert status("/v1/items", nan) == (422, "invalid")
        lone = json.dumps({**engagement("e"), "user_id": "\ud800"}).encode()
        assert status("/v1/engagements", lone)[0] in (400, 422)
        one_bad = json.dumps([engagement("good"), {**engagement("bad"), "occurred_at": "soon"}]).encode()
        response = client.post("/v1/engagements", content=one_bad, headers=json_header)
        assert [each["index"] for each in response.json()["problems"]] == [1]
        for path in ("%ff", "%00", "%ed%a0%80", "news%2f..", "x" * 300):
            response = client.get(f"/v1/topics/{path}/candidates", params={"user_id": "u"})
            assert response.status_code in (404, 422), path
            assert {"error", "message"} <= set(response.json()), path
        assert client.get(QUERY, params={"user_id": "日本 🎣"}).status_code == 200
    assert b" 413 " in raw(settings, b"POST /v1/items HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n")
    assert b" 400 " in raw(settings, b"nonsense\r\n\r\n")
    assert "Traceback" not in server.output()
    assert answers(server) == 200


def test_the_collector_promises_nothing_while_kafka_is_away(
    system: tuple[Settings, Server], kafka: KafkaService
) -> None:
    settings, server = system
    kafka.kill()
    try:
        response = httpx.post(f"{settings.serving_url}/v1/engagements", json=engagement("lost"), timeout=60)
        assert (response.status_code, response.json()["error"]) == (503, "not-delivered")
        assert "again" in response.json()["message"]
        assert answers(server) == 200, "queries need no Kafka"
    finally:
        kafka.start()
    poll(
        lambda: httpx.post(f"{settings.serving_url}/v1/items", json=item("late"), timeout=60).status_code == 202,
        60,
        "the collector works again",
    )
    poll(lambda: server.get("/v1/items/late").json().get("generations") == ["v1"], 60, "the item is retrievable")


def item(item_id: str) -> dict[str, object]:
    return {"item_id": item_id, "topics": ["news"], "published_at": NOW_MS}


def test_queries_come_back_with_redis(system: tuple[Settings, Server], redis_server: RedisService) -> None:
    _, server = system
    redis_server.kill()
    try:
        response = server.get(QUERY, user_id="u")
        assert (response.status_code, response.json()["error"]) == (503, "unavailable")
        assert server.get("/health/live").status_code == 200
    finally:
        redis_server.start()
    poll(lambda: answers(server) == 200, 30, "queries are answered again")
    assert "Traceback" not in server.output()


def test_what_was_accepted_survives_the_death_of_the_server(system: tuple[Settings, Server]) -> None:
    settings, server = system
    accepted: list[str] = []
    stop = threading.Event()

    def post(name: str) -> None:
        with httpx.Client(base_url=settings.serving_url, timeout=30) as client:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    response = client.post("/v1/engagements", json=engagement(f"{name}{number}"))
                except httpx.TransportError:
                    return
                if response.status_code == 202:
                    accepted.append(f"{name}{number}")

    with ThreadPoolExecutor() as pool:
        for name in "abcd":
            pool.submit(post, name)
        poll(lambda: len(accepted) > 100, 30, "events are accepted")
        server.kill()
        stop.set()
    assert set(accepted) <= logged(settings)
    server.start()
    server.wait_ready()
    poll(
        lambda: all(server.get(f"/v1/users/u-{event_id}").json()["known"] for event_id in accepted[-20:]),
        30,
        "all of it counts",
    )


def logged(settings: Settings) -> set[str]:
    consumer = KafkaConsumer(
        settings.names.topic(ENGAGEMENTS),
        bootstrap_servers=settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=3000,
    )
    try:
        return {json.loads(record.value)["event_id"] for record in consumer}
    finally:
        consumer.close()


def test_a_request_through_kafka_waits_for_the_first_promotion(settings: Settings) -> None:
    installation = prepared(settings)
    producer = KafkaProducer(bootstrap_servers=installation.kafka_bootstrap_servers)
    request = CandidateRequest(request_id="early", topic="news", user_ids=("a",), k=3)
    producer.send(installation.names.topic(CANDIDATE_REQUESTS), value=request.to_wire()).get(10)
    producer.close()
    with Process(installation, "stream"), Server(installation) as server:
        promote(installation, server)
        consumer = KafkaConsumer(
            installation.names.topic(CANDIDATES),
            bootstrap_servers=installation.kafka_bootstrap_servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            consumer_timeout_ms=30_000,
        )
        answer = UserCandidates.model_validate_json(next(consumer).value)
        consumer.close()
    assert answer.request_id == "early"
    assert len(answer.candidates) == 3


def test_one_generation_answers_all_of_a_large_request(system: tuple[Settings, Server]) -> None:
    settings, _ = system
    make_bundle(settings.model_dir, "v2", ["news"], seed=1)
    assert headwater(settings, "index", "build", "v2").returncode == 0
    with HeadwaterClient(settings.serving_url) as client, ThreadPoolExecutor() as pool:
        stop, mixed, seen = threading.Event(), list[set[str]](), set[str]()

        def ask() -> None:
            while not stop.is_set():
                try:
                    versions = {each.generation for each in client.notify(USERS[:5000], "news", k=5)}
                except HeadwaterError as error:
                    mixed.append({str(error)})
                    return
                seen.update(versions)
                if len(versions) != 1:
                    mixed.append(versions)

        asking = pool.submit(ask)
        for version in ("v2", "v1", "v2"):
            promoted = headwater(settings, "index", "promote", version)
            assert promoted.returncode == 0, promoted.stderr
        poll(lambda: seen == {"v1", "v2"}, 30, "both answered")
        stop.set()
        asking.result(60)
    assert mixed == []


def test_the_page_needs_nothing_but_this_server(system: tuple[Settings, Server]) -> None:
    _, server = system
    page = server.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert not any(word in page.text for word in ("http://", "https://", "@import", "src="))
    for path in set(re.findall(r"/v1/[a-z]+(?=\")", page.text)):
        assert server.get(path).status_code == 200, path
    server.get(QUERY, user_id="u")
    status = server.get("/v1/status").json()
    shown = set(re.findall(r"\bstatus\.([a-z_0-9]+)", page.text))
    assert {"live", "generations", "queries", "latency_p50_ms", "lag_records"} <= shown <= set(status)
    schema = server.get("/openapi.json").json()
    assert {"/v1/candidates", "/v1/engagements", "/v1/items"} <= set(schema["paths"])


def test_the_users_of_an_output_are_those_of_the_file_after_a_restarted_job(
    system: tuple[Settings, Server], tmp_path: Path
) -> None:
    settings, _ = system
    users, output = tmp_path / "users.txt", tmp_path / "out.parquet"
    users.write_text("\n".join(USERS[:50]))
    (tmp_path / "out.parquet.partial.jsonl").write_text('{"of": "another job"}\n')
    arguments = ("notify", "--topic", "news", "--users", str(users), "--k", "2", "--output", str(output), "--json")
    done = headwater(settings, *arguments, "--restart")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_after"] == 0

"""The server while something is wrong: overload, strange requests, services that die, its own death."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from kafka import KafkaProducer

from headwater.events import CandidateRequest, UserCandidates
from headwater.frames import events_in
from headwater.names import CANDIDATE_REQUESTS, CANDIDATES, ENGAGEMENTS
from headwater.settings import Settings
from tests.integration.serving.catalogue import NOW_MS, answering, installed
from tests.services import KafkaService, RedisService, poll
from tests.system import Server, records_of

USERS = [f"user-{number}" for number in range(20_000)]
CONCURRENCY = 2
QUERY = "/v1/topics/news/candidates"


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
        for wrong in ({}, {"user_id": ""}, {"k": "0"}, {"k": "many"}, {"relevance": "much"}, {"kk": "3"}):
            refused = client.get(QUERY, params={"user_id": "u", **wrong} if wrong else {})
            assert refused.status_code == 422, wrong
            assert refused.json()["problems"][0]["at"], wrong
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
    kept = [
        json.loads(value or b"")["event_id"]
        for record in records_of(settings, ENGAGEMENTS)
        for _, value, _ in events_in(record.key, record.value, record.headers)
    ]
    assert set(accepted) <= set(kept)
    server.start()
    server.wait_ready()
    poll(
        lambda: all(server.get(f"/v1/users/u-{event_id}").json()["known"] for event_id in accepted[-20:]),
        30,
        "all of it counts",
    )


def test_a_request_through_kafka_waits_for_the_first_promotion(
    kafka: KafkaService, redis_server: RedisService, tmp_path: Path
) -> None:
    installation = installed(kafka, redis_server, tmp_path)
    producer = KafkaProducer(bootstrap_servers=installation.kafka_bootstrap_servers)
    request = CandidateRequest(request_id="early", topic="news", user_ids=("a",), k=3)
    producer.send(installation.names.topic(CANDIDATE_REQUESTS), value=request.to_wire()).get(10)
    producer.close()
    with answering(installation):
        (record,) = records_of(installation, CANDIDATES, count=1, wait_s=30.0)
        answer = UserCandidates.model_validate_json(record.value)
    assert answer.request_id == "early"
    assert len(answer.candidates) == 3

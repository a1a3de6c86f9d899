"""Requests that cannot be answered get one JSON shape, and a server that cannot start says why."""

import json
from pathlib import Path

import httpx
import pytest

from headwater.settings import Settings
from tests.integration.serving.catalogue import installed
from tests.services import KafkaService, RedisService
from tests.system import Server, headwater


@pytest.fixture
def installation(kafka: KafkaService, redis_server: RedisService, tmp_path: Path) -> Settings:
    """An installation where nothing runs yet."""
    return installed(kafka, redis_server, tmp_path)


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
    assert 'headwater_index_items{version="v1"}' in server.get("/metrics").text


def test_openapi_describes_the_faults_there_are(system: tuple[Settings, Server]) -> None:
    _, server = system
    described = server.get("/openapi.json").json()
    assert "HTTPValidationError" not in described["components"]["schemas"]
    answers = described["paths"]["/v1/topics/{topic}/candidates"]["get"]["responses"]
    assert set(answers) == {"200", "404", "413", "422", "503"}
    known = set(described["components"]["schemas"]["Fault"]["properties"])
    for path in ("/v1/topics/newz/candidates?user_id=u", "/v1/topics/news/candidates?k=0"):
        assert set(server.get(path).json()) <= known
    long = server.get(f"/v1/topics/{'x' * 300}/candidates", user_id="u").json()
    assert [each["at"] for each in long["problems"]] == ["path.topic"]


def test_before_the_first_promotion_nothing_is_answered(installation: Settings) -> None:
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

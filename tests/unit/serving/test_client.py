"""The client: patience with an overloaded server, no illusions about a broken answer."""

import json

import httpx
import pytest

from headwater import client
from headwater.client import HeadwaterClient
from headwater.errors import HeadwaterError, InvalidEvent, NoLiveGeneration, ServiceUnavailable, UnknownTopic

LINE = '{"user_id": "%s", "topic": "t", "candidates": [], "bundle_version": "v1", "generation": "v1"}\n'


def served(*responses: httpx.Response) -> HeadwaterClient:
    waiting = iter(responses)
    found = HeadwaterClient("http://server")
    found._http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(lambda request: next(waiting)))
    return found


def busy() -> httpx.Response:
    return httpx.Response(503, json={"error": "overloaded", "message": "later"}, headers={"Retry-After": "0"})


def answers(*users: str) -> httpx.Response:
    return httpx.Response(200, text="".join(LINE % user for user in users))


def test_a_job_asks_an_overloaded_server_again() -> None:
    found = list(served(busy(), busy(), answers("a", "b")).notify(["a", "b"], "t"))
    assert [answer.user_id for answer in found] == ["a", "b"]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "OVERLOAD_TRIES", 2)
    with pytest.raises(ServiceUnavailable, match="later"):
        list(served(busy(), busy()).notify(["a"], "t"))


def test_an_incomplete_answer_is_no_answer() -> None:
    with pytest.raises(ServiceUnavailable, match="1 of 2"):
        list(served(answers("a")).notify(["a", "b"], "t"))
    broken = httpx.Response(200, text=LINE % "a" + '{"error": "incomplete", "message": "gone"}\n')
    with pytest.raises(ServiceUnavailable, match="ended the response early"):
        list(served(broken).notify(["a", "b"], "t"))


def test_an_unknown_topic_names_near_ones() -> None:
    missing = httpx.Response(404, json={"error": "unknown-topic", "message": "no", "near": ["news"]})
    with pytest.raises(UnknownTopic) as caught:
        list(served(missing).notify(["a"], "newz"))
    assert caught.value.near == ["news"]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "nothing-live", NoLiveGeneration),
        (503, "unavailable", ServiceUnavailable),
        (422, "invalid", InvalidEvent),
        (413, "too-large", InvalidEvent),
        (500, "internal", HeadwaterError),
    ],
)
def test_a_fault_is_named_for_what_it_is(status: int, code: str, kind: type[HeadwaterError]) -> None:
    fault = httpx.Response(status, json={"error": code, "message": "why"})
    with pytest.raises(HeadwaterError, match="why") as caught:
        served(fault).candidates("u", "t")
    assert type(caught.value) is kind


@pytest.mark.parametrize("status", [200, 404, 500, 502, 503])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'"bad gateway"', b"3", b'{"error": "why"}', b'{"user_id": 1}\n']
)
def test_what_something_else_answers_is_told(status: int, body: bytes) -> None:
    for ask in (lambda found: found.candidates("u", "t"), lambda found: list(found.notify(["u"], "t"))):
        with pytest.raises(HeadwaterError, match=r"HTTP|ended the response early|answered 0 of 1") as caught:
            ask(served(httpx.Response(status, content=body)))
        assert type(caught.value) in (HeadwaterError, ServiceUnavailable)


@pytest.mark.parametrize(
    ("given", "waited_s"),
    [("7", 7.0), ("99999", client.TIMEOUT_S), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0), ("-1", 1.0), ("inf", 1.0)],
)
def test_an_overloaded_server_is_left_alone_for_as_long_as_it_asks(
    given: str, waited_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("headwater.client.time.sleep", waited.append)
    overloaded = busy()
    overloaded.headers["Retry-After"] = given
    assert len(list(served(overloaded, answers("a")).notify(["a"], "t"))) == 1
    assert waited == [waited_s]


def test_filters_may_be_sets_and_none() -> None:
    asked = list[httpx.Request]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, text=LINE % "u")

    found = HeadwaterClient("http://server")
    found._http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(answer))
    found.candidates("u", "t", exclude=frozenset({"a"}), max_age_s=None)
    assert dict(asked[0].url.params) == {"user_id": "u", "k": "50", "exclude": "a"}
    assert list(found.notify_lines(["u"], "t", exclude={"a"}, relevance=None))
    assert json.loads(asked[1].content) == {"user_ids": ["u"], "topics": ["t"], "k": 50, "exclude": ["a"]}

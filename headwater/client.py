"""The client for notification jobs."""

import time
from collections.abc import Iterable, Iterator, Set
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from headwater.batched import batched
from headwater.errors import HeadwaterError, InvalidEvent, NoLiveGeneration, ServiceUnavailable, UnknownTopic
from headwater.events import UserCandidates

TIMEOUT_S = 60.0
USERS_PER_REQUEST = 10_000
OVERLOAD_TRIES = 30
RETRY_S = 1.0
ANSWER_BEGINS = b'{"user_id":'


class HeadwaterClient:
    """Asks a server for candidates over HTTP; keeps one connection open.

    Args:
        url: Where the server is, e.g. `http://127.0.0.1:8080`.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S)

    def candidates(self, user_id: str, topic: str, k: int = 50, **filters: Any) -> UserCandidates:
        """Return which items of a topic a user should be notified about, now.

        Args:
            user_id: Whom; an unknown user gets a cold-start answer.
            topic: About what.
            k: How many at most.
            **filters: `relevance`, `exclude`, `max_age_s`, `include_engaged`, `include_delivered` as in the HTTP interface.

        Raises:
            UnknownTopic: no live item carries the topic.
            ServiceUnavailable: the server cannot be reached, is overloaded or not ready; `NoLiveGeneration` where nothing is
                promoted yet.
            InvalidEvent: the request does not validate.
            HeadwaterError: a fault of the server.
        """
        try:
            response = self._http.get(
                f"/v1/topics/{quote(topic, safe='')}/candidates", params={"user_id": user_id, "k": k, **_given(filters)}
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        _raise_for(response, topic)
        return _answer(response.content)

    def notify(self, user_ids: Iterable[str], topic: str, k: int = 50, **filters: Any) -> Iterator[UserCandidates]:
        """Yield each user's candidates in order, in memory independent of their number.

        A server that refuses because of overload is asked again, up to `OVERLOAD_TRIES` times in a row.

        Raises:
            HeadwaterError: as for `candidates`; what was yielded stands.
        """
        return map(_answer, self.notify_lines(user_ids, topic, k, **filters))

    def notify_lines(self, user_ids: Iterable[str], topic: str, k: int = 50, **filters: Any) -> Iterator[bytes]:
        """Yield what `notify` yields as the server's lines of JSON, each a `UserCandidates`, without a newline.

        Raises:
            HeadwaterError: as for `candidates`; what was yielded stands.
        """
        for chunk in batched(user_ids, USERS_PER_REQUEST):
            yield from self._notified({"user_ids": chunk, "topics": [topic], "k": k, **_given(filters)}, topic)

    def _notified(self, body: dict[str, Any], topic: str) -> Iterator[bytes]:
        for tries_left in reversed(range(OVERLOAD_TRIES)):
            try:
                with self._http.stream("POST", "/v1/candidates", json=body) as response:
                    if response.status_code != 200:
                        response.read()
                    if not (tries_left and _overloaded(response)):
                        _raise_for(response, topic)
                        yield from _answers(response.iter_bytes(), len(body["user_ids"]))
                        return
            except httpx.HTTPError as error:
                raise self._unreachable(error) from None
            time.sleep(_retry_after_s(response))

    def _unreachable(self, error: Exception) -> ServiceUnavailable:
        return ServiceUnavailable(f"no server at {self._http.base_url}: {error}; check HEADWATER_SERVING_URL")

    def close(self) -> None:
        """Disconnect."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _given(filters: dict[str, Any]) -> dict[str, Any]:
    """Return the filters that are not None, with sets as lists."""
    return {
        name: list(value) if isinstance(value, Set) else value for name, value in filters.items() if value is not None
    }


def _answer(content: bytes) -> UserCandidates:
    try:
        return UserCandidates.model_validate_json(content)
    except ValidationError:
        raise HeadwaterError(f"HTTP 200, but no answer: {content[:200].decode(errors='replace')}") from None


def _retry_after_s(response: httpx.Response) -> float:
    """Return how long to wait before asking an overloaded server again; `RETRY_S` where it names a date, or nothing."""
    given = response.headers.get("Retry-After", "")
    return min(float(given), TIMEOUT_S) if given.isdecimal() else RETRY_S


def _answers(chunks: Iterable[bytes], expected: int) -> Iterator[bytes]:
    count, rest = 0, b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line.startswith(ANSWER_BEGINS):
                raise ServiceUnavailable(f"the server ended the response early: {line[:200].decode(errors='replace')}")
            yield line
        count += len(lines)
    if count != expected or rest:
        raise ServiceUnavailable(f"the server answered {count} of {expected} users")


def _overloaded(response: httpx.Response) -> bool:
    return response.status_code == 503 and b'"overloaded"' in response.content


def _raise_for(response: httpx.Response, topic: str) -> None:
    if response.status_code == 200:
        return
    try:
        document = response.json()
        code, message = document["error"], document["message"]
    except (ValueError, KeyError, TypeError):
        raise HeadwaterError(f"HTTP {response.status_code}: {response.text[:200]}") from None
    if code == "unknown-topic":
        raise UnknownTopic(topic, document.get("near", []))
    if response.status_code == 503:
        raise (NoLiveGeneration if code == "nothing-live" else ServiceUnavailable)(message)
    if response.status_code in (413, 422):
        raise InvalidEvent(code, message)
    raise HeadwaterError(f"HTTP {response.status_code}: {message}")

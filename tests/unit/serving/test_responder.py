"""Requests through Kafka of which one cannot be answered."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from redis import ConnectionError as RedisAway

from headwater.events import CandidateRequest
from headwater.names import CANDIDATES, DEAD_LETTERS
from serving.responder import Responder
from serving.retrieval import Filters
from streams.publisher import PublishFailed
from streams.record import Outgoing, Record


class Published(list[Outgoing]):
    async def publish(self, records: Sequence[Outgoing]) -> None:
        self.extend(records)


class Answers:
    """Answers whoever is asked for but those who raise their fault."""

    loaded = SimpleNamespace(live=None)

    def __init__(self, **faults: Exception) -> None:
        self._faults = faults

    async def all_answers(self, user_ids: Sequence[str], *rest: Any) -> AsyncIterator[list[Any]]:
        for user_id in user_ids:
            if user_id in self._faults:
                raise self._faults[user_id]
            yield [SimpleNamespace(user_id=user_id, to_json=lambda **more: b"{}")]


def requests(*user_ids: str) -> list[Record]:
    events = [CandidateRequest(request_id=each, topic="t", user_ids=(each,)) for each in user_ids]
    return [Record("candidate-requests", 0, n, b"", event.to_wire()) for n, event in enumerate(events)]


async def test_a_request_that_nobody_can_answer_holds_up_none_behind_it() -> None:
    published, answers = Published(), Answers(bad=ValueError("not a user record of this format"))
    responder = Responder(answers, published, Filters())  # type: ignore[arg-type]
    await responder.apply(requests("bad", "good"))
    assert [record.topic for record in published] == [DEAD_LETTERS, CANDIDATES]
    assert b"unanswerable" in dict(published[0].headers).values()


async def test_each_part_of_a_request_is_published_before_the_next_is_answered() -> None:
    published, seen = Published(), []

    class Watching(Answers):
        async def all_answers(self, user_ids: Sequence[str], *rest: Any) -> AsyncIterator[list[Any]]:
            async for part in super().all_answers(user_ids, *rest):
                seen.append(len(published))
                yield part

    responder = Responder(Watching(), published, Filters())  # type: ignore[arg-type]
    request = CandidateRequest(request_id="r", topic="t", user_ids=("a", "b", "c"))
    await responder.apply([Record("candidate-requests", 0, 0, b"r", request.to_wire())])
    assert seen == [0, 1, 2]
    assert [record.key for record in published] == [b"a", b"b", b"c"]


async def test_a_request_whose_answers_are_not_acknowledged_is_answered_again() -> None:
    class Away:
        async def publish(self, records: Sequence[Outgoing]) -> None:
            raise PublishFailed("no broker")

    responder = Responder(Answers(), Away(), Filters())  # type: ignore[arg-type]
    with pytest.raises(PublishFailed):
        await responder.apply(requests("u"))


async def test_requests_wait_while_redis_is_away() -> None:
    published = Published()
    responder = Responder(Answers(u=RedisAway()), published, Filters())  # type: ignore[arg-type]
    with pytest.raises(RedisAway):
        await responder.apply(requests("u"))
    assert not published

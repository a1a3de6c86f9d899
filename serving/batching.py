"""Answers concurrent queries in batches."""

import asyncio
from dataclasses import dataclass, field

from redis import RedisError

from serving.retrieval import Answer, Retrieval, TopicQuery, require_topic

MAX_BATCH = 64
LINGER_S = 0.001
"""Pause after a batch of several queries, so that more collect for the next: the fewer share one, the more each costs."""


@dataclass
class Batcher:
    """Answers single queries in batches: those that come while a batch is answered make the next one.

    An idle server answers at once; a busy one shares the round trip to Redis, the towers and the search among more
    queries the more there are.
    """

    retrieval: Retrieval
    _waiting: list[tuple[TopicQuery, asyncio.Future[Answer]]] = field(default_factory=list)
    _answering: asyncio.Task[None] | None = None

    async def answer(self, query: TopicQuery) -> Answer:
        """Return the answer.

        Raises:
            NoLiveGeneration, UnknownTopic, RedisError: as for `Retrieval.answers`.
        """
        require_topic(self.retrieval.loaded.live, query.topic)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, future))
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._answer(batch)
            if len(batch) > 1:
                await asyncio.sleep(LINGER_S)
        self._answering = None

    async def _answer(self, batch: list[tuple[TopicQuery, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self.retrieval.answers([query for query, _ in batch])
        except Exception as error:
            if not isinstance(error, RedisError) and len(batch) > 1:  # one query's fault must not fail the others
                for single in batch:
                    await self._answer([single])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

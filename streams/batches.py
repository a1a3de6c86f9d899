"""From a Faust stream to batches that are acknowledged only when they are done."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import faust
from kafka.errors import KafkaError as SyncKafkaError
from redis import RedisError

from headwater.stores.protocol import StaleWrites
from streams.publisher import PublishFailed
from streams.record import Record

MAX_BATCH = 1024
TURNS = 10
"""Of the event loop, in which Faust hands over what one fetch brought of several partitions."""
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
RETRIED = (RedisError, StaleWrites, PublishFailed, SyncKafkaError, OSError)
Apply = Callable[[list[Record]], Awaitable[None]]

log = logging.getLogger(__name__)


def attach(app: faust.App, topic: str, apply: Apply, at_once: int = MAX_BATCH) -> None:
    """Add the agent that feeds `apply` with the records of `topic`; what `apply` did not foresee crashes the app.

    Args:
        app: The app.
        topic: Its full name.
        apply: Gets batches of records in partition order.
        at_once: Records of a batch at most, which are all repeated when one of them has to wait.
    """

    async def agent(stream: Any) -> None:
        try:
            await in_batches(stream, apply, at_once)
        except Exception as error:
            # Faust would begin the agent anew, after the records it has read ahead.
            log.exception("%s: unforeseen", topic)
            await app.crash(error)
            raise

    app.agent(app.topic(topic, key_type=bytes, value_type=bytes), name=f"headwater.{topic}")(agent)


async def in_batches(stream: Any, apply: Apply, at_once: int = MAX_BATCH) -> None:
    """Apply the records of a stream's messages, as many at once as wait; acknowledge each message after its last record.

    What one fetch brought of several partitions is one batch, since a batch costs more than its records.

    A crash in between repeats them. While Redis or Kafka is away the batch is tried again, and the
    partitions behind it wait. What comes while a batch is applied makes the next one.
    """
    waiting = Waiting()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(waiting.read(stream))
        while True:
            await waiting.some.wait()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            events = waiting.take()
            records = [record for event in events for record in _records(event)]
            for start in range(0, len(records), at_once):
                await persistently(apply, records[start : start + at_once])
            for event in events:
                event.ack()


class Waiting:
    """Messages that were read ahead: those of `MAX_BATCH` records, and the one that exceeds them.

    Attributes:
        some: There are any.
        room: More may be read.
    """

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._records = 0
        self.some, self.room = asyncio.Event(), asyncio.Event()
        self.room.set()

    async def read(self, stream: Any) -> None:
        """Read a stream ahead."""
        async for event in stream.noack().events():
            self._events.append(event)
            self._records += len(event.value)
            self.some.set()
            if self._records >= MAX_BATCH:
                self.room.clear()
            await self.room.wait()

    def take(self) -> list[Any]:
        """Return all there are, and make room."""
        events, self._events, self._records = self._events, [], 0
        self.some.clear()
        self.room.set()
        return events


def _records(event: Any) -> list[Record]:
    return [record for fetched in event.value for record in Record.of(fetched).events()]


async def persistently(apply: Callable[[list[Any]], Awaitable[None]], records: list[Any]) -> None:
    """Call `apply` until the services it needs are there."""
    backoff_s = FIRST_BACKOFF_S
    while True:
        try:
            await apply(records)
            return
        except RETRIED as error:
            level = logging.WARNING if backoff_s == FIRST_BACKOFF_S else logging.DEBUG
            log.log(level, "%d records wait: %s %s", len(records), type(error).__name__, error)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

"""Batches of a Faust stream's records, acknowledged only once they are applied."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import faust
from kafka.errors import KafkaError as SyncKafkaError
from redis import RedisError

from headwater.batched import batched
from headwater.stores.protocol import StaleWrites
from streams.publisher import PublishFailed
from streams.record import Record

MAX_BATCH = 1024
TURNS = 10
"""Turns of the event loop in which Faust hands over what one fetch brought of several partitions."""
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
RETRIED = (RedisError, StaleWrites, PublishFailed, SyncKafkaError, OSError)
Telling = Callable[[], Coroutine[Any, Any, None]]
"""What is left to do of a batch before it is acknowledged, while the next one is applied: to tell others of it."""
Apply = Callable[[list[Record]], Awaitable[Telling | None]]
Result = TypeVar("Result")

log = logging.getLogger(__name__)


def attach(app: faust.App, topic: str, apply: Apply, at_once: int = MAX_BATCH) -> None:
    """Add the agent that feeds `apply` with the records of `topic`; an error that is not in `RETRIED` crashes the app.

    Args:
        app: The app.
        topic: Its full name.
        apply: Gets batches of records in partition order.
        at_once: Records of a batch at most; all of them are repeated when one fails.
    """

    async def agent(stream: Any) -> None:
        try:
            await apply_batches(stream, apply, at_once)
        except Exception as error:
            # Faust would restart the agent after the records that were read ahead, and so lose them.
            log.exception("%s: unexpected error, stopping", topic)
            await app.crash(error)
            raise

    app.agent(app.topic(topic, key_type=bytes, value_type=bytes), name=f"headwater.{topic}")(agent)


async def apply_batches(stream: Any, apply: Apply, at_once: int = MAX_BATCH) -> None:
    """Apply the records of a stream's messages in batches; acknowledge each message after its last record.

    Records that arrive while a batch is applied make the next one. What one fetch brought of several partitions is one
    batch, since a batch costs more than its records. A crash before the acknowledgement repeats a batch; while Redis or
    Kafka is unavailable it is tried again, and later records wait.
    """
    read_ahead, told = ReadAhead(), None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read_ahead.read(stream))
        while True:
            await read_ahead.has_records.wait()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            events = read_ahead.take()
            records = chain.from_iterable(map(_records, events))  # frames are taken apart as their turn comes
            for batch in batched(records, at_once):
                telling = await apply_with_retry(apply, batch)
                if told:
                    await told  # one after the other, so that others are told in order
                told = tasks.create_task(telling()) if telling else None
            tasks.create_task(_acknowledge(events, told))


class ReadAhead:
    """Messages that were read ahead, until they have `MAX_BATCH` records or more.

    Attributes:
        has_records: Set while there are messages to take.
        has_room: Set while more may be read.
    """

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._records = 0
        self.has_records, self.has_room = asyncio.Event(), asyncio.Event()
        self.has_room.set()

    async def read(self, stream: Any) -> None:
        """Read a stream ahead."""
        async for event in stream.noack().events():
            self._events.append(event)
            self._records += len(event.value)
            self.has_records.set()
            if self._records >= MAX_BATCH:
                self.has_room.clear()
            await self.has_room.wait()

    def take(self) -> list[Any]:
        """Return all messages, and make room."""
        events, self._events, self._records = self._events, [], 0
        self.has_records.clear()
        self.has_room.set()
        return events


async def _acknowledge(events: Sequence[Any], told: asyncio.Task[None] | None) -> None:
    """Acknowledge messages once others have been told of them."""
    if told:
        await told
    for event in events:
        event.ack()


def _records(event: Any) -> Iterator[Record]:
    return (record for fetched in event.value for record in Record.of(fetched).events())


async def apply_with_retry(apply: Callable[[list[Any]], Awaitable[Result]], records: list[Any]) -> Result:
    """Call `apply` until the services it needs are available, and return what it returns."""
    backoff_s = FIRST_BACKOFF_S
    while True:
        try:
            return await apply(records)
        except RETRIED as error:
            level = logging.WARNING if backoff_s == FIRST_BACKOFF_S else logging.DEBUG
            log.log(level, "%d records wait: %s %s", len(records), type(error).__name__, error)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

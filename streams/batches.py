"""From a Faust stream to batches that are acknowledged only when they are done."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import faust
from kafka.errors import KafkaError as SyncKafkaError
from redis import RedisError

from streams.publisher import PublishFailed
from streams.record import Record

MAX_BATCH = 512
LINGER_S = 0.02
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
RETRIED = (RedisError, PublishFailed, SyncKafkaError, OSError)
Apply = Callable[[list[Record]], Awaitable[None]]

log = logging.getLogger(__name__)


def attach(app: faust.App, topic: str, apply: Apply) -> None:
    """Add the agent that feeds `apply` with the records of `topic`."""

    async def agent(stream: Any) -> None:
        await in_batches(stream, apply)

    app.agent(app.topic(topic, key_type=bytes, value_type=bytes), name=f"headwater.{topic}")(agent)


async def in_batches(stream: Any, apply: Apply) -> None:
    """Apply a stream's records in batches; acknowledge each batch after `apply` returned.

    A crash in between repeats the batch. While Redis or Kafka is away the batch is tried again, and the
    partitions behind it wait.
    """
    async for events in stream.noack_take(MAX_BATCH, within=LINGER_S):
        records = [record for event in events for record in Record.of(event).events()]
        for start in range(0, len(records), MAX_BATCH):
            await persistently(apply, records[start : start + MAX_BATCH])
        for event in events:
            event.ack()


async def persistently(apply: Apply, records: list[Record]) -> None:
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

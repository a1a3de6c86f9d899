"""The fold, the writes and the publishing of a stream worker without Faust, for loops that are compared with it."""

import asyncio
from collections.abc import Sequence
from functools import partial

from aiokafka import AIOKafkaProducer

from headwater.intake import latest_ms
from headwater.settings import Settings
from headwater.stores import RedisFeatureStore
from streams.batches import MAX_BATCH
from streams.engagements import EngagementFold
from streams.record import Outgoing, Record
from streams.report import Report


class IngestLoop:
    """Takes in records, and counts them in `report`; lives in one event loop."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._names = settings.names
        self._producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
        self._fold = EngagementFold(RedisFeatureStore.of(settings), self, report, partial(latest_ms, settings))

    @classmethod
    async def started(cls, settings: Settings, report: Report) -> "IngestLoop":
        """Return one that is connected to Kafka."""
        loop = cls(settings, report)
        await loop._producer.start()
        return loop

    async def take_in(self, records: Sequence[Record]) -> None:
        """Apply all events in some records, in batches as a stream worker does."""
        events = [event for record in records for event in record.events()]
        for start in range(0, len(events), MAX_BATCH):
            tell = await self._fold.apply(events[start : start + MAX_BATCH])
            await tell()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Append records and wait until they are there."""
        sent = [
            await self._producer.send(self._names.topic(each.topic), each.value, each.key, headers=list(each.headers))
            for each in records
        ]
        await asyncio.gather(*sent)

"""Applies what a server follows: item embeddings, item activity, successions."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from headwater.activity import ItemActivity, decode_activity_frame, summed
from headwater.errors import DimensionMismatch
from headwater.index import ItemIndex
from headwater.item_covisits import ItemCovisits
from headwater.item_embedding import ItemEmbedding, decode_item_embedding, parse_embedding_key
from headwater.stores import FeatureStore
from headwater.successions import decode_successions
from serving.clock import Clock
from serving.held import HeldGenerations
from serving.metrics import Metrics
from streams.record import Record

SLICE = 8

log = logging.getLogger(__name__)
Frame = TypeVar("Frame")


@dataclass
class Followed:
    """State that comes out of Kafka; rebuilt or restored whenever the server starts.

    Attributes:
        applied: Partition of `item-embeddings` to the next offset not applied yet.
        covisits: Which items are engaged with after which.
        targets: Partition to the end of the log when the server started; reached means ready.
    """

    held: HeldGenerations
    clock: Clock
    metrics: Metrics
    applied: dict[int, int] = field(default_factory=dict)
    targets: dict[int, int] = field(default_factory=dict)
    covisits: ItemCovisits = field(default_factory=ItemCovisits)
    _ignored: set[str] = field(default_factory=set)
    _parts: dict[str, dict[int, ItemActivity]] = field(default_factory=dict)

    @property
    def lag(self) -> int:
        """Records of `item-embeddings` between here and the end known at the start."""
        return sum(max(0, end - self.applied.get(partition, 0)) for partition, end in self.targets.items())

    async def on_embeddings(self, records: Sequence[Record]) -> None:
        """Insert, update and delete in slices, so that queries get their turn.

        A version seen for the first time is looked up in the register before anything of it is passed over.

        Raises:
            RedisError: the register cannot be read; the records must come again.
        """
        unknown = {version for version in map(_version, records) if version} - set(self.held.pairs) - self._ignored
        if unknown:
            await self.held.refresh()
            self._ignored |= unknown - set(self.held.pairs)
        for start in range(0, len(records), SLICE):
            part = records[start : start + SLICE]
            async with self.held.writing:
                self._apply_embeddings(part)
            await asyncio.sleep(0)

    def _apply_embeddings(self, records: Sequence[Record]) -> None:
        upserts: dict[str, dict[str, ItemEmbedding]] = {}
        for record in records:
            self.applied[record.partition] = record.offset + 1
            try:
                version, item_id = parse_embedding_key(record.key or b"")
                if version not in self.held.pairs:
                    continue
                if record.value is None:
                    upserts.get(version, {}).pop(item_id, None)
                    self.held.pairs[version].index.delete([item_id])
                else:
                    upserts.setdefault(version, {})[item_id] = _decoded(item_id, record.value)
            except (ValueError, TypeError, KeyError) as error:
                log.error("%s/%d@%d: %s", record.topic, record.partition, record.offset, error)
        for version, items in upserts.items():
            self._upsert(version, list(items.values()))
        now_s = time.time()
        for record in records:
            if record.appended_ms:
                self.clock.heard(record.appended_ms)
                self.metrics.freshness_seconds.observe(max(0.0, now_s - record.appended_ms / 1000))

    def _upsert(self, version: str, items: list[ItemEmbedding]) -> None:
        try:
            self.held.pairs[version].index.upsert(items)
        except DimensionMismatch as error:
            log.error("%s: %s", version, error)

    async def on_activity(self, records: Sequence[Record]) -> None:
        """Replace the counts of the items in each frame."""
        for record, partition, frame in _frames(records, decode_activity_frame):
            self.set_activities({(partition, item_id): activity for item_id, activity in frame})
            self.clock.heard(record.appended_ms)
            await asyncio.sleep(0)

    async def on_successions(self, records: Sequence[Record]) -> None:
        """Count which items are engaged with after which."""
        for record, partition, successions in _frames(records, decode_successions):
            self.covisits.engage(partition, successions)
            self.clock.heard(record.appended_ms)
            await asyncio.sleep(0)

    def set_activities(self, activities: Mapping[tuple[int, str], ItemActivity]) -> None:
        """Take over item activities unless newer ones of the same partition are known."""
        for (partition, item_id), activity in activities.items():
            parts = self._parts.setdefault(item_id, {})
            known = parts.get(partition)
            if known is None or known.offset < activity.offset:
                parts[partition] = activity
                total = summed(parts.values())
                self.clock.advance(total.as_of_ms)
                self.held.set_activity(item_id, total)

    async def load_activity(self, store: FeatureStore) -> None:
        """Begin with what Redis holds."""
        async for batch in store.active_items():
            self.set_activities(batch)

    def fill(self, index: ItemIndex) -> None:
        """Give an index the activity known so far."""
        for item_id, parts in self._parts.items():
            index.set_activity(item_id, summed(parts.values()))

    def publish_metrics(self) -> None:
        """Set the gauges."""
        self.metrics.lag.set(self.lag)
        self.metrics.watermark.set(self.clock.watermark_ms / 1000)
        for version, pair in self.held.pairs.items():
            self.metrics.items.labels(version).set(len(pair.index))


def _frames(records: Sequence[Record], decode: Callable[[bytes], Frame]) -> Iterator[tuple[Record, int, Frame]]:
    """Yield each readable record with the partition of `engagements` it speaks of, and its content."""
    for record in records:
        try:
            yield record, int(record.key or b""), decode(record.value or b"")
        except ValueError as error:
            log.error("%s/%d@%d: %s", record.topic, record.partition, record.offset, error)


def _decoded(item_id: str, value: bytes) -> ItemEmbedding:
    item = decode_item_embedding(item_id, value)
    if not np.isfinite(item.embedding).all():
        raise ValueError(f"{item_id}: an embedding that is not finite")
    return item


def _version(record: Record) -> str | None:
    try:
        return parse_embedding_key(record.key or b"")[0]
    except ValueError:
        return None

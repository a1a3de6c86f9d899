"""Applies the topics that a server follows: item embeddings, item activity, successions."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from headwater.activity import ItemActivity, decode_activity_frame, summed
from headwater.index import ItemIndex
from headwater.index.cells import Cells
from headwater.item_covisits import ItemCovisits
from headwater.item_embedding import ItemEmbedding, decode_item_embedding, parse_embedding_key
from headwater.stores import FeatureStore
from headwater.successions import decode_successions
from serving.clock import Clock
from serving.loaded import LoadedGenerations
from serving.metrics import Metrics
from streams.record import Record

SLICE = 8
"""Embeddings applied before queries get a turn."""
FORGET_SLICE = 1_000
"""Items looked at before queries get a turn."""

log = logging.getLogger(__name__)
Frame = TypeVar("Frame")


@dataclass
class Followed:
    """State built from Kafka; rebuilt or restored whenever the server starts.

    Attributes:
        applied: Partition of `item-embeddings` to the next offset not applied yet.
        covisits: Which items are engaged with after which.
        targets: Partition of `item-embeddings` to its end when the server started; ready once they are reached.
        unread: (topic, partition) of the other followed topics to the offsets left to its end when the server started.
        ends: Returns partition to the end of the log as of the last fetch.
    """

    loaded: LoadedGenerations
    clock: Clock
    metrics: Metrics
    applied: dict[int, int] = field(default_factory=dict)
    targets: dict[int, int] = field(default_factory=dict)
    unread: dict[tuple[str, int], range] = field(default_factory=dict)
    covisits: ItemCovisits = field(default_factory=ItemCovisits)
    ends: Callable[[], Mapping[int, int]] = dict
    _parts: dict[str, dict[int, ItemActivity]] = field(default_factory=dict)

    @property
    def to_go(self) -> int:
        """Records left to the ends known at the start, in all followed topics."""
        return self._behind(self.targets) + sum(map(len, self.unread.values()))

    @property
    def lag(self) -> int:
        """Records of `item-embeddings` that are not applied yet."""
        return self._behind({**self.targets, **self.ends()})

    def _behind(self, ends: Mapping[int, int]) -> int:
        return sum(max(0, end - self.applied.get(partition, 0)) for partition, end in ends.items())

    async def on_embeddings(self, records: Sequence[Record]) -> None:
        """Insert, update and delete in slices, so that queries get their turn.

        A version seen for the first time is looked up in the registry before any of its embeddings is skipped.

        Raises:
            RedisError: the registry cannot be read; the same records must be applied again.
        """
        unknown = {version for version in map(_version, records) if version} - set(self.loaded.pairs)
        if unknown - set(self.loaded.skipped_ms):
            await self.loaded.refresh()
        for start in range(0, len(records), SLICE):
            part = records[start : start + SLICE]
            async with self.loaded.writing:
                self._apply_embeddings(part)
            await asyncio.sleep(0)

    def _apply_embeddings(self, records: Sequence[Record]) -> None:
        upserts: dict[str, dict[str, ItemEmbedding]] = {}
        appended_ms = []
        for record in records:
            self.applied[record.partition] = record.offset + 1
            try:
                version, item_id = parse_embedding_key(record.key or b"")
                if version not in self.loaded.pairs:
                    known_ms = self.loaded.skipped_ms.get(version, 0)
                    self.loaded.skipped_ms[version] = max(known_ms, record.appended_ms)
                    continue
                index = self.loaded.pairs[version].index
                if record.value is None:
                    upserts.get(version, {}).pop(item_id, None)
                    index.delete([item_id])
                else:
                    upserts.setdefault(version, {})[item_id] = _decoded(item_id, record.value, index.dimension)
                    appended_ms.append(record.appended_ms)
                self.clock.note_append(record.appended_ms)
            except (ValueError, TypeError, KeyError) as error:
                log.error("%s/%d@%d: %s", record.topic, record.partition, record.offset, error)
        for version, items in upserts.items():
            self.loaded.pairs[version].index.upsert(list(items.values()))
        if not self.to_go:  # embeddings read during start-up were retrievable before it
            now_s = time.time()
            for each_ms in appended_ms:
                self.metrics.freshness_seconds.observe(max(0.0, now_s - each_ms / 1000))

    async def learn_cells(self) -> None:
        """Learn the cells of topics that have become large, beside the event loop; inserts wait, queries do not.

        After a start it waits until the server has caught up, since it gets no queries before.
        """
        if self.to_go:
            return
        for pair in list(self.loaded.pairs.values()):
            for topic in pair.index.topics_needing_cells():
                async with self.loaded.writing:
                    if topic in pair.index.topics_needing_cells():
                        cells = await asyncio.to_thread(Cells.learned, pair.index.embeddings(topic))
                        pair.index.give_cells(topic, cells)

    async def on_activity(self, records: Sequence[Record]) -> None:
        """Replace the counts of the items in each frame."""
        for record, partition, frame in _frames(records, decode_activity_frame):
            self.set_activities({(partition, item_id): activity for item_id, activity in frame})
            self.clock.note_append(record.appended_ms)
            await asyncio.sleep(0)
        self._note_read(records)

    async def on_successions(self, records: Sequence[Record]) -> None:
        """Count which items are engaged with after which."""
        for _, partition, successions in _frames(records, decode_successions):
            self.covisits.count(partition, successions)
            await asyncio.sleep(0)
        self._note_read(records)

    def _note_read(self, records: Sequence[Record]) -> None:
        for record in records if self.unread else ():
            left = range(record.offset + 1, self.unread.pop(record.source, range(0)).stop)
            if left:
                self.unread[record.source] = left

    def set_activities(self, activities: Mapping[tuple[int, str], ItemActivity]) -> None:
        """Set item activities unless newer ones of the same partition are known."""
        for (partition, item_id), activity in activities.items():
            parts = self._parts.setdefault(item_id, {})
            known = parts.get(partition)
            if known is None or known.offset < activity.offset:
                parts[partition] = activity
                total = summed(parts.values())
                self.clock.advance(total.as_of_ms)
                self.loaded.set_activity(item_id, total)

    async def load_activity(self, store: FeatureStore) -> None:
        """Set the item activities stored in Redis."""
        async for batch in store.active_items():
            self.set_activities(batch)

    def fill(self, index: ItemIndex) -> None:
        """Give an index the activity known so far."""
        for item_id, parts in self._parts.items():
            index.set_activity(item_id, summed(parts.values()))

    async def forget_activity(self, before_ms: int) -> None:
        """Drop activity older than a time of items that are in no index; in slices, so that queries get their turn."""
        for count, item_id in enumerate(list(self._parts), start=1):
            old = all(part.as_of_ms < before_ms for part in self._parts[item_id].values())
            if old and not any(item_id in pair.index for pair in self.loaded.pairs.values()):
                del self._parts[item_id]
                for pair in self.loaded.pairs.values():
                    pair.index.forget_activity(item_id)
            if count % FORGET_SLICE == 0:
                await asyncio.sleep(0)

    def publish_metrics(self) -> None:
        """Set the gauges."""
        self.metrics.items.clear()
        self.metrics.lag.set(self.lag)
        self.metrics.watermark.set(self.clock.watermark_ms / 1000)
        for version, pair in self.loaded.pairs.items():
            self.metrics.items.labels(version).set(len(pair.index))


def _frames(records: Sequence[Record], decode: Callable[[bytes], Frame]) -> Iterator[tuple[Record, int, Frame]]:
    """Yield each readable record with the partition of `engagements` that its key names, and its decoded value."""
    for record in records:
        try:
            yield record, int(record.key or b""), decode(record.value or b"")
        except ValueError as error:
            log.error("%s/%d@%d: %s", record.topic, record.partition, record.offset, error)


def _decoded(item_id: str, value: bytes, dimension: int) -> ItemEmbedding:
    item = decode_item_embedding(item_id, value)
    if item.embedding.shape != (dimension,):
        raise ValueError(f"{item_id}: embedding of {len(item.embedding)} dimensions, the index has {dimension}")
    with np.errstate(over="ignore"):
        squared = item.embedding @ item.embedding
    if not np.isfinite(squared):
        raise ValueError(f"{item_id}: an embedding that is not finite, or too long")
    return item


def _version(record: Record) -> str | None:
    try:
        return parse_embedding_key(record.key or b"")[0]
    except ValueError:
        return None

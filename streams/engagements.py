"""Folds engagements into user records and item activity, each exactly once in effect."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from headwater.activity import encode_activity_frame
from headwater.batched import batched
from headwater.dead_letter import DeadLetter
from headwater.errors import InvalidEvent
from headwater.events import Engagement
from headwater.fold import Outcome
from headwater.intake import read_engagement
from headwater.names import ITEM_ACTIVITY, ITEM_SUCCESSIONS
from headwater.stores import FeatureStore, FeatureWrites
from headwater.stores.protocol import SourcePartition
from headwater.succession_encoding import encode_successions
from headwater.users import Folded, Placed
from streams.batches import Telling, apply_with_retry
from streams.publisher import Publisher, dead_letter_record
from streams.record import Outgoing, Record
from streams.report import Report
from streams.state_cache import StateCache

FRAME_ENTRIES = 64
"""Entries per record: of successions of items with the longest ids Kafka takes no more."""


@dataclass(slots=True)
class EngagementFold:
    """Applies batches of `engagements` records.

    Attributes:
        latest_ms: Returns the epoch ms after which an engagement is refused now.
    """

    store: FeatureStore
    publisher: Publisher
    report: Report
    latest_ms: Callable[[], int]
    cache: StateCache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = StateCache(self.store)

    async def apply(self, records: Sequence[Record]) -> Telling:
        """Fold and store; the caller commits offsets after what this returns has published.

        Raises:
            RedisError, StaleWrites, PublishFailed: nothing is stored, the same batch can be applied again.
        """
        # 1. Decode; what cannot be read becomes a dead letter.
        decoded, letters = self._decode(records)
        # 2. Look items up; an engagement with an unknown one becomes a dead letter.
        accepted, unknown = await self._accept(decoded)
        letters += unknown
        # 3. Publish the dead letters before storing: once later engagements of the same users are stored, a repeat of the batch
        # would take these for repeated ones, if their items are known by then, and lose them.
        await self.publisher.publish(list(map(dead_letter_record, letters)))
        try:
            # 4. Read what the batch touches and fold. An offset applied before a crash changes neither user nor item.
            writes, folded = await self._fold(accepted, {record.source for record in records})
            # 5. Store all of it at once.
            await self.store.commit(writes)
            self.cache.stored(writes)
        except BaseException:
            self.cache.forget()
            raise
        self._count(folded, letters)
        # 6. Publish activity and successions, which carry their offsets, so repeating them is harmless. Only this is retried,
        # since what is stored must not be folded again: duplicates would look like repeated engagements.
        return partial(apply_with_retry, self.publisher.publish, [*_activities(writes), *self._successions(folded)])

    def _decode(self, records: Sequence[Record]) -> tuple[list[tuple[Record, Engagement]], list[DeadLetter]]:
        latest_ms = self.latest_ms()
        decoded: list[tuple[Record, Engagement]] = []
        letters = []
        for record in records:
            try:
                engagement = read_engagement(record.key, record.value, record.headers, latest_ms)
            except InvalidEvent as error:
                letters.append(record.rejected(error))
            else:
                decoded.append((record, engagement))
        return decoded, letters

    async def _accept(self, decoded: list[tuple[Record, Engagement]]) -> tuple[list[Placed], list[DeadLetter]]:
        item_ids = list({engagement.item_id for _, engagement in decoded})
        found = zip(item_ids, await self.store.items(item_ids), strict=True)
        topics = {item_id: stored.item.topics for item_id, stored in found if stored is not None}
        accepted: list[Placed] = []
        letters = []
        for record, engagement in decoded:
            carried = topics.get(engagement.item_id)
            if carried is not None:
                accepted.append(Placed(engagement, carried, record.partition, record.position))
            else:
                error = InvalidEvent("unknown-item", f"the catalogue holds no item {engagement.item_id!r}")
                letters.append(record.rejected(error))
        return accepted, letters

    async def _fold(self, accepted: list[Placed], sources: Collection[SourcePartition]) -> tuple[FeatureWrites, Folded]:
        keys = [(each.partition, each.engagement.item_id) for each in accepted]
        writes = await self.store.begin(sources)
        await self.cache.read(writes.claims, {each.engagement.user_id for each in accepted}, set(keys))
        users, activities = self.cache.users, self.cache.activities
        folded = users.fold(accepted)
        user_rows = {each.engagement.user_id: row for each, row in zip(accepted, folded.rows.tolist(), strict=True)}
        writes.users.update(zip(user_rows, users.encoded(list(user_rows.values())), strict=True))
        writes.former = {user_id: self.cache.heads[user_id] for user_id in user_rows}
        rows = [activities.rows[key] for key in keys]
        activities.count(np.array(rows, np.int64), folded.times_ms, folded.positions, folded.outcomes)
        counted = dict(zip(keys, rows, strict=True))
        encoded = zip(counted, activities.encoded(list(counted.values())), strict=True)
        writes.activities.update((key, activity) for key, activity in encoded if activity)
        return writes, folded

    def _successions(self, folded: Folded) -> Iterator[Outgoing]:
        published = folded.outcomes != Outcome.DUPLICATE
        names = self.cache.users.items.encoded()
        for partition in np.unique(folded.partitions).tolist():
            rows = np.flatnonzero(published & (folded.partitions == partition))
            positions, times_ms, items = folded.positions[rows], folded.times_ms[rows], folded.items[rows]
            for value in encode_successions(positions, times_ms, items, folded.before[rows], names, FRAME_ENTRIES):
                yield Outgoing(ITEM_SUCCESSIONS, str(partition).encode(), value)

    def _count(self, folded: Folded, letters: list[DeadLetter]) -> None:
        outcomes = folded.outcomes.tolist()
        self.report.applied += outcomes.count(Outcome.APPLIED)
        self.report.duplicates += outcomes.count(Outcome.DUPLICATE)
        self.report.repeated += outcomes.count(Outcome.REPEATED)
        self.report.dead_letters += len(letters)
        self.report.reject(letters)


def _activities(writes: FeatureWrites) -> Iterator[Outgoing]:
    by_partition: dict[int, list[tuple[str, bytes]]] = {}
    for (partition, item_id), activity in writes.activities.items():
        by_partition.setdefault(partition, []).append((item_id, activity))
    for partition, entries in by_partition.items():
        for frame in batched(entries, FRAME_ENTRIES):
            yield Outgoing(ITEM_ACTIVITY, str(partition).encode(), encode_activity_frame(frame))

"""Engagements into user records and item activity, each exactly once in effect."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from headwater.activity import ItemActivity, encode_activity_frame
from headwater.dead_letter import DeadLetter
from headwater.errors import InvalidEvent
from headwater.events import Engagement
from headwater.fold import Outcome
from headwater.intake import read_engagement
from headwater.names import ITEM_ACTIVITY, ITEM_SUCCESSIONS
from headwater.stores import FeatureStore, FeatureWrites
from headwater.stores.protocol import SourcePartition
from headwater.successions import Succession, encode_successions
from headwater.users import Folded, Placed
from streams.batches import persistently
from streams.publisher import Publisher, dead_letter_record
from streams.record import Outgoing, Record
from streams.report import Report
from streams.state_cache import StateCache

Told = TypeVar("Told")

FRAME_ENTRIES = 64
"""As many successions of items with the longest ids as Kafka takes in one record."""


@dataclass(slots=True)
class EngagementFold:
    """Applies batches of `engagements` records.

    Attributes:
        latest_ms: Says after which epoch ms engagements are refused now.
    """

    store: FeatureStore
    publisher: Publisher
    report: Report
    latest_ms: Callable[[], int]
    cache: StateCache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = StateCache(self.store)

    async def apply(self, records: Sequence[Record]) -> None:
        """Fold, store, publish; the caller commits offsets after this returns.

        Raises:
            RedisError, StaleWrites, PublishFailed: nothing is stored, the same batch can be applied again.
        """
        # 1. Decode; what cannot be read becomes a dead letter.
        decoded, letters = self._decode(records)
        # 2. Look items up; an engagement with an unknown one becomes a dead letter.
        accepted, unknown = await self._accept(decoded)
        letters += unknown
        # 3. Keep the dead letters: once what the same users did later is stored, these would count as repeated.
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
        # 6. Tell: activity and successions carry their offsets, so repeating them is harmless. What is stored must not be
        # folded again: a duplicate could not be told from an engagement that is repeated.
        successions = self._successions(accepted, folded)
        told = [
            *_frames(ITEM_ACTIVITY, _activities(writes), encode_activity_frame),
            *_frames(ITEM_SUCCESSIONS, successions, encode_successions),
        ]
        await persistently(self.publisher.publish, told)

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
        for key, each, outcome in zip(keys, accepted, folded.outcomes.tolist(), strict=True):
            if outcome == Outcome.APPLIED:
                activities[key] = activities[key].apply(each.engagement.occurred_at, each.position)
        rows = {each.engagement.user_id: row for each, row in zip(accepted, folded.rows.tolist(), strict=True)}
        writes.users.update(zip(rows, users.encoded(list(rows.values())), strict=True))
        writes.former = {user_id: self.cache.heads[user_id] for user_id in rows}
        writes.activities.update((key, activities[key]) for key in keys if activities[key].total)
        return writes, folded

    def _successions(self, accepted: list[Placed], folded: Folded) -> dict[int, list[Succession]]:
        told: dict[int, list[Succession]] = {}
        names = self.cache.users.items.texts
        for each, outcome, before in zip(accepted, folded.outcomes.tolist(), folded.before.tolist(), strict=True):
            if outcome != Outcome.DUPLICATE:
                past = tuple([names[number] for number in before if number])
                engagement = each.engagement
                succession = Succession(each.position, engagement.occurred_at, engagement.item_id, past)
                told.setdefault(each.partition, []).append(succession)
        return told

    def _count(self, folded: Folded, letters: list[DeadLetter]) -> None:
        outcomes = folded.outcomes.tolist()
        self.report.applied += outcomes.count(Outcome.APPLIED)
        self.report.duplicates += outcomes.count(Outcome.DUPLICATE)
        self.report.repeated += outcomes.count(Outcome.REPEATED)
        self.report.dead_letters += len(letters)
        self.report.reject(letters)


def _activities(writes: FeatureWrites) -> dict[int, list[tuple[str, ItemActivity]]]:
    by_partition: dict[int, list[tuple[str, ItemActivity]]] = {}
    for (partition, item_id), activity in writes.activities.items():
        by_partition.setdefault(partition, []).append((item_id, activity))
    return by_partition


def _frames(
    topic: str, by_partition: Mapping[int, Sequence[Told]], encode: Callable[[Sequence[Told]], bytes]
) -> list[Outgoing]:
    return [
        Outgoing(topic, str(partition).encode(), encode(told[start : start + FRAME_ENTRIES]))
        for partition, told in by_partition.items()
        for start in range(0, len(told), FRAME_ENTRIES)
    ]

"""Engagements into user records and item activity, each exactly once in effect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headwater.activity import ItemActivity, encode_activity_frame
from headwater.dead_letter import DeadLetter
from headwater.errors import InvalidEvent
from headwater.events import Engagement
from headwater.intake import read_engagement
from headwater.names import ITEM_ACTIVITY, ITEM_SUCCESSIONS
from headwater.stores import FeatureStore, FeatureWrites
from headwater.successions import Succession, encode_successions, succession
from headwater.user_record import Outcome, UserRecord
from streams.publisher import Publisher, dead_letter_record
from streams.record import Outgoing, Record
from streams.report import Report

Successions = dict[int, list[Succession]]
Accepted = tuple[Record, Engagement, tuple[str, ...]]
Told = TypeVar("Told")

FRAME_ENTRIES = 64
"""As many successions of items with the longest ids as Kafka takes in one record."""


@dataclass(frozen=True, slots=True)
class EngagementFold:
    """Applies batches of `engagements` records.

    Attributes:
        latest_ms: Says after which epoch ms engagements are refused now.
    """

    store: FeatureStore
    publisher: Publisher
    report: Report
    latest_ms: Callable[[], int]

    async def apply(self, records: Sequence[Record]) -> None:
        """Fold, store, publish; the caller commits offsets after this returns.

        Raises:
            RedisError, StaleWrites, PublishFailed: nothing is lost, the same batch can be applied again.
        """
        # 1. Decode; what cannot be read becomes a dead letter.
        decoded, letters = self._decode(records)
        # 2. Read what the batch touches; an unknown item makes a dead letter.
        accepted, unknown = await self._accept(decoded)
        letters += unknown
        # 3. Keep the dead letters: once what the same users did later is stored, these would count as repeated.
        await self.publisher.publish(list(map(dead_letter_record, letters)))
        # 4. Fold. An offset applied before a crash changes neither the user nor the item.
        writes, successions, outcomes = await self._fold(accepted)
        # 5. Store all of it at once.
        await self.store.commit(writes)
        self._count(outcomes, letters)
        # 6. Tell: activity and successions carry their offsets, so repeating them is harmless.
        await self.publisher.publish(
            [
                *_frames(ITEM_ACTIVITY, _activities(writes), encode_activity_frame),
                *_frames(ITEM_SUCCESSIONS, successions, encode_successions),
            ]
        )

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

    async def _accept(self, decoded: list[tuple[Record, Engagement]]) -> tuple[list[Accepted], list[DeadLetter]]:
        item_ids = list({engagement.item_id for _, engagement in decoded})
        found = zip(item_ids, await self.store.items(item_ids), strict=True)
        topics = {item_id: stored.item.topics for item_id, stored in found if stored is not None}
        accepted: list[Accepted] = []
        letters = []
        for record, engagement in decoded:
            if engagement.item_id in topics:
                accepted.append((record, engagement, topics[engagement.item_id]))
            else:
                error = InvalidEvent("unknown-item", f"the catalogue holds no item {engagement.item_id!r}")
                letters.append(record.rejected(error))
        return accepted, letters

    async def _fold(self, accepted: list[Accepted]) -> tuple[FeatureWrites, Successions, list[Outcome]]:
        user_ids = list({engagement.user_id for _, engagement, _ in accepted})
        keys = list({(record.partition, engagement.item_id) for record, engagement, _ in accepted})
        writes = await self.store.begin({record.source for record, *_ in accepted})
        successions, outcomes = Successions(), []
        users = dict(zip(user_ids, await self.store.users(user_ids), strict=True))
        activities = dict(zip(keys, await self.store.activities(keys), strict=True))
        for record, engagement, topics in accepted:
            user = users[engagement.user_id] or UserRecord()
            user, outcome = user.apply(engagement, topics, record.partition, record.position)
            users[engagement.user_id] = writes.users[engagement.user_id] = user
            key = (record.partition, engagement.item_id)
            if outcome is Outcome.APPLIED:
                activity = (activities[key] or ItemActivity()).apply(engagement.occurred_at, record.position)
                activities[key] = activity
            if (current := activities[key]) is not None:
                writes.activities[key] = current
            if outcome is not Outcome.DUPLICATE:
                told = succession(user.state, engagement, record.position)
                successions.setdefault(record.partition, []).append(told)
            outcomes.append(outcome)
        return writes, successions, outcomes

    def _count(self, outcomes: list[Outcome], letters: list[DeadLetter]) -> None:
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

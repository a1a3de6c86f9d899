"""Folds deliveries into what was sent to each user lately."""

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.delivered import Delivered
from headwater.errors import InvalidEvent
from headwater.intake import read_delivery
from headwater.stores import FeatureStore
from streams.publisher import Publisher, dead_letter_record
from streams.record import Record
from streams.report import Report


@dataclass(frozen=True, slots=True)
class DeliveryFold:
    """Applies batches of `deliveries` records."""

    store: FeatureStore
    publisher: Publisher
    report: Report

    async def apply(self, records: Sequence[Record]) -> None:
        """Fold, store, publish dead letters; the caller commits offsets after this returns."""
        accepted, letters = [], []
        for record in records:
            try:
                accepted.append((record, read_delivery(record.key, record.value, record.headers)))
            except InvalidEvent as error:
                letters.append(record.rejected(error))
        user_ids = list({delivery.user_id for _, delivery in accepted})
        writes = await self.store.begin({record.source for record, _ in accepted})
        current = dict(zip(user_ids, await self.store.delivered(user_ids), strict=True))
        for record, delivery in accepted:
            before = writes.delivered.get(delivery.user_id) or current[delivery.user_id] or Delivered()
            writes.delivered[delivery.user_id] = before.apply(delivery, record.partition, record.position)
        await self.store.commit(writes)
        await self.publisher.publish([dead_letter_record(letter) for letter in letters])
        self.report.deliveries += len(accepted)
        self.report.reject(letters)

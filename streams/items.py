"""Items into the catalogue and, through the item tower, into `item-embeddings`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headwater.dead_letter import DeadLetter
from headwater.errors import InvalidEvent
from headwater.events import Item
from headwater.intake import read_item
from headwater.stores import FeatureStore, FeatureWrites
from headwater.stores.protocol import Deletion, StoredItem
from streams.embedder import Embedder, tombstones
from streams.present_items import publish_present
from streams.publisher import Publisher, dead_letter_record
from streams.record import Record
from streams.report import Report


@dataclass(frozen=True, slots=True)
class ItemIntake:
    """Applies batches of `items` records; a null value is a tombstone.

    Attributes:
        latest_ms: Returns the epoch ms after which a publication time is refused now.
    """

    store: FeatureStore
    publisher: Publisher
    report: Report
    embedder: Embedder
    latest_ms: Callable[[], int]

    async def apply(self, records: Sequence[Record]) -> None:
        """Validate, store, embed, publish; the caller commits offsets after this returns.

        Raises:
            RedisError, StaleWrites, PublishFailed: the same batch can be applied again.
        """
        if not self.embedder.known:
            await self.embedder.refresh()
        # 1. Decode. Within a batch the last record of an item counts.
        changes, letters = _decode(records, self.latest_ms())
        # 2. Leave out what is older than the catalogue's entry.
        writes = await self._newer_only(changes)
        # 3. Store, so that engagements with these items are known from here on.
        await self.store.commit(writes)
        # 4. Embed and publish. A crash before the commit of offsets repeats this with the same result.
        fresh = [stored.item for stored in writes.items.values() if isinstance(stored, StoredItem)]
        gone = [item_id for item_id, stored in writes.items.items() if isinstance(stored, Deletion)]
        embeddings = self.embedder.embed(fresh)
        outgoing = [*map(dead_letter_record, letters), *embeddings, *tombstones(gone, self.embedder.registered)]
        await self.publisher.publish(outgoing)
        self.report.items += len(writes.items)
        self.report.embedded += len(embeddings)
        self.report.reject(letters)

    async def expire(self) -> None:
        """Delete the embeddings of items that have expired from the catalogue.

        Raises:
            RedisError, PublishFailed: the next call resumes.
        """
        async for gone in self.store.expired():
            # Those that were stored again meanwhile are published again.
            versions = self.embedder.registered
            await publish_present(self.store, self.publisher, self.embedder, versions, dict.fromkeys(gone))

    async def _newer_only(self, changes: dict[str, tuple[Record, Item | None]]) -> FeatureWrites:
        writes = await self.store.begin({record.source for record, _ in changes.values()})
        current = await self.store.item_offsets(list(changes))
        for (item_id, (record, item)), known in zip(changes.items(), current, strict=True):
            place = record.partition, record.offset
            if known is None or known[0] != record.partition or known <= place:
                writes.items[item_id] = Deletion(*place) if item is None else StoredItem(item, *place)
        return writes


def _decode(
    records: Sequence[Record], latest_ms: int
) -> tuple[dict[str, tuple[Record, Item | None]], list[DeadLetter]]:
    changes: dict[str, tuple[Record, Item | None]] = {}
    letters = []
    for record in records:
        try:
            item_id, item = read_item(record.key, record.value, record.headers, latest_ms)
            changes[item_id] = (record, item)
        except InvalidEvent as error:
            letters.append(record.rejected(error))
    return changes, letters

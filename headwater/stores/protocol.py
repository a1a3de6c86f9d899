"""What every feature store offers; one contract suite tests all implementations."""

import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headwater.activity import ItemActivity
from headwater.delivered import Delivered
from headwater.events import Item
from headwater.user_record import UserRecord

TOKEN_BYTES = 12
SourcePartition = tuple[str, int]
"""A Kafka topic, with its namespace, and a partition of it."""


class StaleWrites(Exception):
    """Since this worker read, another one has claimed one of its partitions or stored one of its users; apply the batch again."""


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A catalogue entry and the Kafka offset of the record it came from (an older one is skipped)."""

    item: Item
    partition: int = -1
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Deletion:
    """The Kafka offset of an item's tombstone, kept as long as an item, so that nothing older is stored after it."""

    partition: int = -1
    offset: int = -1


@dataclass(slots=True)
class FeatureWrites:
    """What one batch of Kafka records changes; committed together.

    Attributes:
        users: user_id to record, encoded.
        former: user_id to the `HEAD` of the record that the new one follows, empty where there was none.
        activities: (partition, item_id) to activity, encoded.
        items: item_id to catalogue entry, or that it is deleted.
        delivered: user_id to what was delivered.
        claims: Each partition the records come from, to the fencing token under which it is claimed; see `FeatureStore.begin`.
    """

    users: dict[str, bytes] = field(default_factory=dict)
    activities: dict[tuple[int, str], bytes] = field(default_factory=dict)
    items: dict[str, StoredItem | Deletion] = field(default_factory=dict)
    delivered: dict[str, Delivered] = field(default_factory=dict)
    claims: Mapping[SourcePartition, bytes] = field(default_factory=dict)
    former: Mapping[str, bytes] = field(default_factory=dict)


def claimed(sources: Collection[SourcePartition]) -> FeatureWrites:
    """Return writes that claim partitions under a new fencing token."""
    return FeatureWrites(claims=dict.fromkeys(sources, secrets.token_bytes(TOKEN_BYTES)))


class FeatureStore(Protocol):
    """User records, the item catalogue and item activity, by id; order of answers is that of the ids."""

    async def users(self, user_ids: Sequence[str]) -> list[UserRecord | None]:
        """Return each user's record, None where there is none."""
        ...

    async def encoded_users(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """Return each user's record as it is stored, damaged or not, None where there is none."""
        ...

    async def delivered(self, user_ids: Sequence[str]) -> list[Delivered | None]:
        """Return what was delivered to each user."""
        ...

    async def users_and_delivered(
        self, user_ids: Sequence[str]
    ) -> tuple[list[UserRecord | None], list[Delivered | None]]:
        """Return both in one round trip."""
        ...

    async def items(self, item_ids: Sequence[str]) -> list[StoredItem | None]:
        """Return each item's catalogue entry, None where there is none."""
        ...

    async def item_offsets(self, item_ids: Sequence[str]) -> list[tuple[int, int] | None]:
        """Return partition and offset of the record that each item's entry, or its deletion, came from."""
        ...

    async def activities(self, keys: Sequence[tuple[int, str]]) -> list[ItemActivity | None]:
        """Return the activity of each (partition, item_id)."""
        ...

    async def begin(self, sources: Collection[SourcePartition]) -> FeatureWrites:
        """Claim partitions before reading what the batch changes, and return writes to fill.

        An earlier claimant's batch can no longer be committed for them, however late it arrives.
        """
        ...

    async def commit(self, writes: FeatureWrites) -> None:
        """Store all of a batch or none of it.

        Raises:
            StaleWrites: nothing is stored, since another worker has meanwhile claimed one of its partitions or stored one of
                its users.
        """
        ...

    def catalogue(self, batch_size: int = 1000, since_ms: int = 0) -> AsyncIterator[list[StoredItem]]:
        """Yield all catalogue entries in batches, or those stored since an epoch ms by the clock of the storing worker."""
        ...

    def expired(self, batch_size: int = 1000) -> AsyncIterator[list[str]]:
        """Yield the ids of expired entries in batches, and remove the ids after the last batch.

        An entry that can still be read once its id was yielded has been stored again meanwhile.
        """
        ...

    async def catalogue_size(self) -> int:
        """Return the number of catalogue entries."""
        ...

    def active_items(self, batch_size: int = 1000) -> AsyncIterator[Mapping[tuple[int, str], ItemActivity]]:
        """Yield the activity of all recently engaged items in batches."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...

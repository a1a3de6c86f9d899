"""The feature store in a process's own memory, for tests and offline work."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from headwater.activity import ItemActivity, decode_activity
from headwater.batched import batched
from headwater.delivered import Delivered
from headwater.events import now_ms
from headwater.stores.protocol import Deletion, FeatureWrites, SourcePartition, StaleWrites, StoredItem, claimed
from headwater.user_record import HEAD, UserRecord, decode_user_record


class MemoryFeatureStore:
    """Keeps everything in dictionaries; nothing expires."""

    def __init__(self) -> None:
        self._users: dict[str, bytes] = {}
        self._delivered: dict[str, Delivered] = {}
        self._items: dict[str, StoredItem | Deletion] = {}
        self._stored_ms: dict[str, int] = {}
        self._activities: dict[tuple[int, str], bytes] = {}
        self._claims: dict[SourcePartition, bytes] = {}

    async def users(self, user_ids: Sequence[str]) -> list[UserRecord | None]:
        known = await self.encoded_users(user_ids)
        return [None if record is None else decode_user_record(record) for record in known]

    async def encoded_users(self, user_ids: Sequence[str]) -> list[bytes | None]:
        return [self._users.get(user_id) for user_id in user_ids]

    async def delivered(self, user_ids: Sequence[str]) -> list[Delivered | None]:
        return [self._delivered.get(user_id) for user_id in user_ids]

    async def users_and_delivered(
        self, user_ids: Sequence[str]
    ) -> tuple[list[UserRecord | None], list[Delivered | None]]:
        return await self.users(user_ids), await self.delivered(user_ids)

    async def items(self, item_ids: Sequence[str]) -> list[StoredItem | None]:
        return [known if isinstance(known, StoredItem) else None for known in map(self._items.get, item_ids)]

    async def item_offsets(self, item_ids: Sequence[str]) -> list[tuple[int, int] | None]:
        return [(known.partition, known.offset) if known else None for known in map(self._items.get, item_ids)]

    async def activities(self, keys: Sequence[tuple[int, str]]) -> list[ItemActivity | None]:
        known = [self._activities.get(key) for key in keys]
        return [None if activity is None else decode_activity(activity) for activity in known]

    async def begin(self, sources: Collection[SourcePartition]) -> FeatureWrites:
        writes = claimed(sources)
        self._claims.update(writes.claims)
        return writes

    async def commit(self, writes: FeatureWrites) -> None:
        if any(self._claims.get(source) != token for source, token in writes.claims.items()):
            raise StaleWrites("another batch of the same partition was started meanwhile")
        if any(self._users.get(user_id, b"")[HEAD] != head for user_id, head in writes.former.items()):
            raise StaleWrites("one of the users was stored meanwhile")
        self._users.update(writes.users)
        self._delivered.update(writes.delivered)
        self._activities.update(writes.activities)
        for item_id, stored in writes.items.items():
            self._items[item_id], self._stored_ms[item_id] = stored, now_ms()

    async def catalogue(self, batch_size: int = 1000, since_ms: int = 0) -> AsyncIterator[list[StoredItem]]:
        for batch in batched(self._present(since_ms), batch_size):
            yield batch

    async def expired(self, batch_size: int = 1000) -> AsyncIterator[list[str]]:
        for batch in batched(list[str](), batch_size):
            yield batch

    async def catalogue_size(self) -> int:
        return len(self._present())

    def _present(self, since_ms: int = 0) -> list[StoredItem]:
        return [
            known
            for item_id, known in self._items.items()
            if isinstance(known, StoredItem) and self._stored_ms[item_id] >= since_ms
        ]

    async def active_items(self, batch_size: int = 1000) -> AsyncIterator[Mapping[tuple[int, str], ItemActivity]]:
        for batch in batched(list(self._activities.items()), batch_size):
            yield {key: decode_activity(activity) for key, activity in batch}

    async def close(self) -> None:
        return None

"""What a worker need not read again, and when it must."""

from collections.abc import Sequence

import pytest

from headwater.events import Engagement
from headwater.stores import FeatureWrites, MemoryFeatureStore
from headwater.user_record import UserRecord
from headwater.users import Placed
from streams import state_cache
from streams.state_cache import StateCache

SOURCE = ("engagements", 0)
CLAIMS = {SOURCE: b"mine"}


class Counting(MemoryFeatureStore):
    """Notes which users are read, and lets an operator delete them."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    async def encoded_users(self, user_ids: Sequence[str]) -> list[bytes | None]:
        self.read += user_ids
        return await super().encoded_users(user_ids)

    def delete_users(self) -> None:
        self._users.clear()


def engaged(cache: StateCache, offset: int) -> None:
    event = Engagement(event_id=f"e{offset}", user_id="u", item_id="i", occurred_at=1_700_000_000_000 + offset)
    cache.users.fold([Placed(event, (), 0, offset)])


async def stored(store: MemoryFeatureStore, cache: StateCache) -> None:
    await store.commit(FeatureWrites(users={"u": cache.users.encoded([cache.users.rows["u"]])[0]}))


async def test_users_are_read_once_while_the_claim_holds() -> None:
    store = Counting()
    cache = StateCache(store)
    for offset in range(3):
        await cache.read(CLAIMS, ["u"], [(0, "i")])
        engaged(cache, offset)
    assert store.read == ["u"]
    assert cache.users.record("u").state.engagements == 3


async def test_a_new_claim_reads_what_another_worker_stored() -> None:
    store = Counting()
    mine, other = StateCache(store), StateCache(store)
    await mine.read(CLAIMS, ["u"], [])
    engaged(mine, 0)
    await other.read({SOURCE: b"other"}, ["u"], [])
    for offset in range(5):
        engaged(other, offset)
    await stored(store, other)
    await mine.read({SOURCE: b"mine again"}, ["u"], [])
    assert mine.users.record("u").state.engagements == 5


@pytest.mark.parametrize("limit", ["MAX_AGE_S", "MAX_USERS", "MAX_NAMES"])
async def test_it_starts_from_scratch_when_it_is_old_or_full(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Counting()
    cache = StateCache(store)
    await cache.read(CLAIMS, ["u"], [])
    engaged(cache, 0)
    await stored(store, cache)
    store.delete_users()
    monkeypatch.setattr(state_cache, limit, 0)
    await cache.read(CLAIMS, ["u"], [])
    assert cache.users.record("u") == UserRecord()

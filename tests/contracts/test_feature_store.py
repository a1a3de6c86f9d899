"""One suite over every feature store."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis as SyncRedis
from redis.asyncio import Connection, Redis

from headwater.activity import ItemActivity
from headwater.delivered import Delivered
from headwater.events import Item
from headwater.names import Names
from headwater.settings import Settings
from headwater.stores import FeatureStore, FeatureWrites, MemoryFeatureStore, RedisFeatureStore
from headwater.stores.protocol import Deletion, StaleWrites, StoredItem
from headwater.user_record import HEAD, UserRecord
from headwater.user_state import UserState
from serving.retrieval import TURNS
from tests.folding import encode_activity, encode_user_record
from tests.services import RedisService

USER = UserRecord(UserState(("i",), (1_700_000_000_000,), engagements=1), 2, 3, b"123456")
ENCODED = encode_user_record(USER)
ITEM = StoredItem(Item(item_id="i", topics=("t", "ü"), published_at=1_700_000_000_000, attributes={"a": 1.5}), 1, 9)
ACTIVITY = ItemActivity((1.0, 2.0, 3.0, 4.0, 5.0), 1_700_000_000_000, 5, 8)
COUNTED = encode_activity(ACTIVITY)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, redis_server: RedisService) -> AsyncIterator[FeatureStore]:
    if request.param == "memory":
        yield MemoryFeatureStore()
        return
    redis = Redis.from_url(redis_server.url)
    await redis.flushall()
    await redis.aclose()
    store = contract_store(redis_server)
    yield store
    await store.close()


def contract_store(redis_server: RedisService) -> RedisFeatureStore:
    url = SecretStr(redis_server.url)
    return RedisFeatureStore.of(Settings(redis_url=url, namespace="contract", user_ttl_s=1000, item_ttl_s=1000))


async def test_activity_of_another_format_counts_anew(redis_server: RedisService) -> None:
    settings = Settings(redis_url=SecretStr(redis_server.url), namespace="former")
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set(settings.names.activity(0, "i"), b"\x01 of a former release")
        await redis.sadd(settings.names.activity_partitions(), 0)
        await redis.zadd(settings.names.active_items(0), {"i": 1, "j": 2})
    store = RedisFeatureStore.of(settings)
    assert await store.activities([(0, "i")]) == [None]
    assert [dict(batch) async for batch in store.active_items()] == [{}]
    await store.close()


async def test_damaged_values_are_as_none_and_told(
    redis_server: RedisService, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(redis_url=SecretStr(redis_server.url), namespace="damaged")
    names, store = settings.names, RedisFeatureStore.of(settings)
    await store.commit(FeatureWrites(users={"whole": ENCODED}, items={"i": ITEM}))
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set(names.user("half"), ENCODED[:-1])
        await redis.set(names.delivered("half"), b"\xff")
        await redis.set(names.item("half"), b"0 1 {")
    assert await store.users(["whole", "half"]) == [USER, None]
    assert await store.users_and_delivered(["half", "whole"]) == ([None, USER], [None, None])
    assert await store.items(["half", "i"]) == [None, ITEM]
    assert names.user("half") in caplog.text
    assert names.item("half") in caplog.text
    await store.close()


async def test_redis_works_on_a_reading_after_a_few_turns_of_the_event_loop(redis_server: RedisService) -> None:
    store = RedisFeatureStore.of(Settings(redis_url=SecretStr(redis_server.url)))
    await store.users(["u"])
    with SyncRedis.from_url(redis_server.url) as redis:
        redis.config_resetstat()
        reading = asyncio.create_task(store.users(["u"]))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        deadline = time.monotonic() + 5  # from here on the event loop stands still
        while "cmdstat_mget" not in redis.info("commandstats") and time.monotonic() < deadline:
            time.sleep(0.001)
        assert "cmdstat_mget" in redis.info("commandstats")
    await reading
    await store.close()


async def test_as_many_queries_read_at_once_as_a_server_lets_in(redis_server: RedisService) -> None:
    settings = Settings(redis_url=SecretStr(redis_server.url), serving_max_concurrency=300)
    store = RedisFeatureStore.of(settings)
    readings = (store.users([f"u{number}"]) for number in range(settings.serving_max_concurrency))
    assert len(await asyncio.gather(*readings)) == 300
    await store.close()


async def test_commands_are_packed_as_redis_does(redis_server: RedisService) -> None:
    store = RedisFeatureStore.of(Settings(redis_url=SecretStr(redis_server.url)))
    pool: Any = store._redis.connection_pool
    connection = pool.make_connection()
    for command in (("CONFIG GET", "save"), ("SET", "ü", b"\x00\r\n", "PX", 10**12), ("ZADD", "k", 1.5, b"")):
        assert b"".join(connection.pack_command(*command)) == b"".join(Connection().pack_command(*command))
    await store.close()


async def test_nothing_is_known_at_first(store: FeatureStore) -> None:
    assert await store.users(["a", "b"]) == [None, None]
    assert await store.items([]) == []
    assert await store.activities([(0, "i")]) == [None]
    assert await store.users_and_delivered(["a"]) == ([None], [None])
    assert [batch async for batch in store.catalogue()] == []
    assert await store.catalogue_size() == 0


async def test_what_is_committed_is_read_back(store: FeatureStore) -> None:
    delivered = Delivered(("x", "y"), 0, 4)
    await store.commit(FeatureWrites({"a": ENCODED}, {(2, "i"): COUNTED}, {"i": ITEM}, {"a": delivered}))
    assert await store.users(["b", "a"]) == [None, USER]
    assert await store.delivered(["a"]) == [delivered]
    assert await store.users_and_delivered(["a", "b"]) == ([USER, None], [delivered, None])
    assert await store.items(["i"]) == [ITEM]
    assert await store.activities([(2, "i"), (1, "i")]) == [ACTIVITY, None]
    assert [dict(batch) async for batch in store.active_items()] == [{(2, "i"): ACTIVITY}]


async def test_of_two_workers_the_one_that_began_last_commits(store: FeatureStore, redis_server: RedisService) -> None:
    other = contract_store(redis_server) if isinstance(store, RedisFeatureStore) else store
    first = await store.begin({("engagements", 0), ("engagements", 1)})
    second = await other.begin({("engagements", 1), ("engagements", 2)})
    third = await store.begin({("items", 1)})
    first.users["a"], first.items["i"] = ENCODED, ITEM
    with pytest.raises(StaleWrites):
        await store.commit(first)
    assert await store.users(["a"]) == [None]
    assert await store.items(["i"]) == [None]
    for worker, writes, user_id in ((other, second, "b"), (store, third, "c")):
        writes.users[user_id] = ENCODED
        await worker.commit(writes)
    assert await store.users(["b", "c"]) == [USER, USER]
    await store.begin({("engagements", 1)})
    with pytest.raises(StaleWrites):
        await store.commit(first)  # as if it had been under way all the time
    again = await store.begin({("engagements", 1)})
    again.users["a"] = ENCODED
    await store.commit(again)
    assert await store.users(["a"]) == [USER]
    with pytest.raises(StaleWrites):
        await other.commit(second)
    await other.close()


async def test_a_claim_holds_until_a_commit_fails(redis_server: RedisService) -> None:
    async with Redis.from_url(redis_server.url) as redis:
        await redis.flushall()
        store = RedisFeatureStore(redis, Names("claims"), user_ttl_s=1000, item_ttl_s=1000)
        first, second = [await store.begin({("engagements", 0)}) for _ in range(2)]
        assert first.claims == second.claims
        await redis.flushall()
        second.users["a"] = ENCODED
        with pytest.raises(StaleWrites):
            await store.commit(second)
        assert await store.users(["a"]) == [None]
        third = await store.begin({("engagements", 0)})
        assert third.claims != second.claims
        third.users["a"] = ENCODED
        await store.commit(third)
        assert await store.users(["a"]) == [USER]


async def test_an_empty_commit_is_one(store: FeatureStore) -> None:
    await store.commit(FeatureWrites())


async def test_the_catalogue_comes_in_batches(store: FeatureStore) -> None:
    items = {f"i{n}": StoredItem(Item(item_id=f"i{n}", topics=(), published_at=10**12), 0, n) for n in range(25)}
    await store.commit(FeatureWrites(items=dict(items)))
    batches = [batch async for batch in store.catalogue(10)]
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert {stored.item.item_id for batch in batches for stored in batch} == set(items)
    assert await store.catalogue_size() == 25


async def test_a_batch_may_be_large(store: FeatureStore) -> None:
    ids = [f"i{number}" for number in range(9_000)]
    kept = {item_id: StoredItem(ITEM.item.model_copy(update={"item_id": item_id}), 0, 0) for item_id in ids}
    await store.commit(FeatureWrites(items=dict(kept), activities={(0, item_id): COUNTED for item_id in ids}))
    assert await store.catalogue_size() == len(ids)
    assert sum([len(batch) async for batch in store.active_items()]) == len(ids)
    await store.commit(FeatureWrites(items=dict.fromkeys(ids, Deletion())))
    assert await store.catalogue_size() == 0
    assert await store.items(ids) == [None] * len(ids)


async def test_a_deleted_item_is_gone(store: FeatureStore) -> None:
    await store.commit(FeatureWrites(items={"i": ITEM}))
    assert await store.item_offsets(["i", "never"]) == [(ITEM.partition, ITEM.offset), None]
    await store.commit(FeatureWrites(items={"i": Deletion(1, 10), "never": Deletion(2, 3)}))
    assert await store.items(["i"]) == [None]
    assert await store.item_offsets(["i", "never", "else"]) == [(1, 10), (2, 3), None]
    assert [batch async for batch in store.catalogue()] == []
    assert await store.catalogue_size() == 0


async def test_everything_in_redis_expires(redis_server: RedisService) -> None:
    redis = Redis.from_url(redis_server.url)
    await redis.flushall()
    store = RedisFeatureStore(redis, Names("ttl"), user_ttl_s=1000, item_ttl_s=1000)
    await store.begin({("engagements", 0)})
    await store.commit(FeatureWrites({"a": ENCODED}, {(2, "i"): COUNTED}, {"i": ITEM}, {"a": Delivered(("x",), 0, 1)}))
    lasting = {b"ttl:catalogue", b"ttl:activity-partitions", b"ttl:claim:engagements:0"}
    for key in await redis.keys("*"):
        assert key in lasting or await redis.ttl(key) > 0, key
    await store.close()


async def test_the_catalogue_tells_what_is_over(redis_server: RedisService) -> None:
    async with Redis.from_url(redis_server.url) as redis:
        await redis.flushall()
        names = Names("expired")
        store = RedisFeatureStore(redis, names, user_ttl_s=1000, item_ttl_s=1000)
        await store.commit(FeatureWrites(items={"old": ITEM, "new": ITEM}))
        assert [batch async for batch in store.expired()] == []
        await redis.zadd(names.catalogue(), {"old": 0})
        assert [batch async for batch in store.expired()] == [["old"]]
        assert await store.items(["old", "new"]) == [None, ITEM], "whatever was left of its time to live"
        assert await store.catalogue_size() == 1
        assert [batch async for batch in store.expired()] == []


@pytest.mark.parametrize("former", [b"", ENCODED[HEAD][:-1] + b"x"])
async def test_a_user_that_was_stored_meanwhile_is_not_overwritten(store: FeatureStore, former: bytes) -> None:
    await store.commit(FeatureWrites({"a": ENCODED}))
    other = ENCODED.replace(b"123456", b"654321")
    assert await store.encoded_users(["a", "b"]) == [ENCODED, None]
    writes = FeatureWrites({"b": other, "a": other}, {(2, "i"): COUNTED}, former={"a": former})
    with pytest.raises(StaleWrites):
        await store.commit(writes)
    assert await store.users(["a", "b"]) == [USER, None]
    assert await store.activities([(2, "i")]) == [None]
    writes.former = {"a": ENCODED[HEAD], "b": b""}
    await store.commit(writes)
    assert await store.encoded_users(["a", "b"]) == [other, other]
    assert await store.activities([(2, "i")]) == [ACTIVITY]

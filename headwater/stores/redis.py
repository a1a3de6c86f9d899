"""The feature store on Redis: one compact value per user, item, and item activity."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.connection import HiredisRespSerializer

from headwater.activity import ItemActivity, decode_activity, newest_ms
from headwater.batched import batched
from headwater.delivered import Delivered, decode_delivered, encode_delivered
from headwater.events import Item, now_ms
from headwater.names import Names
from headwater.settings import Settings
from headwater.stores.protocol import Deletion, FeatureWrites, SourcePartition, StaleWrites, StoredItem, claimed
from headwater.user_record import HEAD, UserRecord, decode_user_record

DECODED_ITEMS = 20_000
CONNECTIONS = 100
"""Connections beyond one per concurrent query; redis-py raises when the pool is exhausted."""
MEMBERS = 1_000
"""Members named in one command at most: Redis' Lua cannot call one of more than 8,000 words."""
EXPIRY_GRACE_MS = 60_000
"""Grace after an item's TTL, for clock skew."""
COMMIT = f"""
local claims, checked = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2])
for n = 1, claims do
  if redis.call('GET', KEYS[n]) ~= ARGV[n + 2] then return 0 end
end
for n = claims + 1, checked do
  if redis.call('GETRANGE', KEYS[n], {HEAD.start}, {HEAD.stop - 1}) ~= ARGV[n + 2] then return 0 end
end
local at = checked + 3
for n = claims + 1, #KEYS do
  redis.call('SET', KEYS[n], ARGV[at], 'PX', ARGV[at + 1])
  at = at + 2
end
while at <= #ARGV do
  redis.call(unpack(ARGV, at + 1, at + ARGV[at]))
  at = at + ARGV[at] + 1
end
return 1
"""
"""Store all of a batch or none of it.

Keys: claims, then users whose former record is known, then others. Arguments: the numbers of the first two; the fencing tokens
of the claims; the heads of the former records; value and time to live in ms for each key but the claims; then other commands,
each as its number of words and the words. One script, because a client takes longer to send a command than Redis to run it."""
EXPIRE = """
for n = 2, #KEYS do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if score and tonumber(score) <= tonumber(ARGV[1]) then redis.call('DEL', KEYS[n]) end
end
"""
"""Delete the values of items that are still expired by the catalogue, even if their TTL was set when it was longer.

Keys: the catalogue, then one per item. Arguments: expired before this epoch ms, then the item ids."""
log = logging.getLogger(__name__)
Decoded = TypeVar("Decoded")
Command = tuple[str | int, ...]


class _PacksInC:
    """A connection that packs commands in C, as redis-py's synchronous ones do.

    Its asynchronous ones take five times as long: more than a millisecond for a command of hundreds of keys or values.
    """

    _packer = HiredisRespSerializer()

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command as it goes over the wire."""
        packed: list[bytes] = self._packer.pack(*args)
        return packed


class RedisFeatureStore:
    """Reads with one MGET, writes with one script; everything carries a time to live.

    A worker that has lost its partitions in a rebalance may still run for a while, and its writes may reach Redis even later.
    So the script stores nothing once another worker has claimed a partition (its fencing token differs) or has stored another
    record of one of the users. A worker keeps its claims until a commit fails.

    Args:
        redis: A client that returns bytes.
        names: The installation's key names.
        user_ttl_s: See `Settings`.
        item_ttl_s: See `Settings`.
    """

    def __init__(self, redis: Redis, names: Names, user_ttl_s: int, item_ttl_s: int) -> None:
        self._redis = redis
        self._names = names
        self._user_ttl_ms = user_ttl_s * 1000
        self._item_ttl_ms = item_ttl_s * 1000
        self._claims: dict[SourcePartition, bytes] = {}

    @classmethod
    def of(cls, settings: Settings) -> "RedisFeatureStore":
        """Return the store of an installation, over connections of its own."""
        most = settings.serving_max_concurrency + CONNECTIONS
        redis = Redis.from_url(settings.redis_url.get_secret_value(), max_connections=most)
        pool: Any = redis.connection_pool
        pool.connection_class = type("PackingConnection", (_PacksInC, pool.connection_class), {})
        return cls(redis, settings.names, settings.user_ttl_s, settings.item_ttl_s)

    async def users(self, user_ids: Sequence[str]) -> list[UserRecord | None]:
        return await self._read(map(self._names.user, user_ids), decode_user_record)

    async def encoded_users(self, user_ids: Sequence[str]) -> list[bytes | None]:
        found: Any = await self._redis.mget(list(map(self._names.user, user_ids))) if user_ids else []
        return list(found)

    async def delivered(self, user_ids: Sequence[str]) -> list[Delivered | None]:
        return await self._read(map(self._names.delivered, user_ids), decode_delivered)

    async def users_and_delivered(
        self, user_ids: Sequence[str]
    ) -> tuple[list[UserRecord | None], list[Delivered | None]]:
        keys = [*map(self._names.user, user_ids), *map(self._names.delivered, user_ids)]
        values: Any = await self._redis.mget(keys) if keys else []
        half = len(user_ids)
        users = _decoded(keys[:half], values[:half], decode_user_record)
        return users, _decoded(keys[half:], values[half:], decode_delivered)

    async def items(self, item_ids: Sequence[str]) -> list[StoredItem | None]:
        return await self._read(map(self._names.item, item_ids), _decode_item)

    async def item_offsets(self, item_ids: Sequence[str]) -> list[tuple[int, int] | None]:
        return await self._read(map(self._names.item, item_ids), _decode_offset)

    async def activities(self, keys: Sequence[tuple[int, str]]) -> list[ItemActivity | None]:
        return await self._read((self._names.activity(*key) for key in keys), decode_activity)

    async def _read(self, keys: Iterable[str], decode: Callable[[bytes], Decoded | None]) -> list[Decoded | None]:
        wanted = list(keys)
        values: Any = await self._redis.mget(wanted) if wanted else []
        return _decoded(wanted, values, decode)

    async def begin(self, sources: Collection[SourcePartition]) -> FeatureWrites:
        fresh = claimed([source for source in sources if source not in self._claims]).claims
        if fresh:
            await self._redis.mset({self._names.claim(*source): token for source, token in fresh.items()})
            self._claims.update(fresh)
        return FeatureWrites(claims={source: self._claims[source] for source in sources})

    async def commit(self, writes: FeatureWrites) -> None:
        claims = {self._names.claim(*source): token for source, token in writes.claims.items()}
        values = dict(self._values(writes))
        former = {self._names.user(user_id): head for user_id, head in writes.former.items()}
        commands = [*self._note_active(writes.activities), *self._note_catalogue(writes.items)]
        words: Iterable[str | int] = chain.from_iterable((len(command), *command) for command in commands)
        keys: list[str] = [*claims, *former, *(key for key in values if key not in former)]
        sizes: list[Any] = [len(claims), len(former), *claims.values(), *former.values()]
        arguments = [*sizes, *chain.from_iterable(values[key] for key in keys[len(claims) :]), *words]
        try:
            evaluated: Any = self._redis.eval(COMMIT, len(keys), *keys, *arguments)
            if not await evaluated:
                raise StaleWrites("another worker has claimed one of the partitions, or stored one of the users")
        except BaseException:  # the batch may still reach Redis, where its token must then be outdated
            for source in writes.claims:
                self._claims.pop(source, None)
            raise

    def _values(self, writes: FeatureWrites) -> Iterator[tuple[str, tuple[bytes, int]]]:
        """Yield each key with its value and its time to live in ms."""
        for user_id, record in writes.users.items():
            yield self._names.user(user_id), (record, self._user_ttl_ms)
        for user_id, delivered in writes.delivered.items():
            yield self._names.delivered(user_id), (encode_delivered(delivered), self._user_ttl_ms)
        for (partition, item_id), activity in writes.activities.items():
            yield self._names.activity(partition, item_id), (activity, self._item_ttl_ms)
        for item_id, stored in writes.items.items():
            yield self._names.item(item_id), (_encode_item(stored), self._item_ttl_ms)

    def _note_active(self, activities: Mapping[tuple[int, str], bytes]) -> Iterator[Command]:
        newest: dict[int, dict[str, int]] = {}
        for (partition, item_id), activity in activities.items():
            newest.setdefault(partition, {})[item_id] = newest_ms(activity)
        for partition, scores in newest.items():
            key = self._names.active_items(partition)
            yield "SADD", self._names.activity_partitions(), partition
            yield from _scored(key, scores)
            yield "ZREMRANGEBYSCORE", key, "-inf", max(scores.values()) - self._item_ttl_ms
            yield "PEXPIRE", key, self._item_ttl_ms

    def _note_catalogue(self, items: Mapping[str, StoredItem | Deletion]) -> Iterator[Command]:
        noted_ms = now_ms()
        kept = {item_id: noted_ms for item_id, stored in items.items() if isinstance(stored, StoredItem)}
        gone = items.keys() - kept.keys()
        yield from _scored(self._names.catalogue(), kept)
        for part in batched(gone, MEMBERS):
            yield "ZREM", self._names.catalogue(), *part

    async def catalogue(self, batch_size: int = 1000, since_ms: int = 0) -> AsyncIterator[list[StoredItem]]:
        members: Any = await self._redis.zrangebyscore(self._names.catalogue(), since_ms, "+inf")
        for batch in batched(map(bytes.decode, members), batch_size):
            yield [entry for entry in await self.items(batch) if entry is not None]

    async def expired(self, batch_size: int = 1000) -> AsyncIterator[list[str]]:
        key = self._names.catalogue()
        before_ms = now_ms() - self._item_ttl_ms - EXPIRY_GRACE_MS
        members: Any = await self._redis.zrangebyscore(key, "-inf", before_ms)
        if not members:
            return
        for item_ids in batched(map(bytes.decode, members), batch_size):
            keys = [key, *map(self._names.item, item_ids)]
            deleted: Any = self._redis.eval(EXPIRE, len(keys), *keys, before_ms, *item_ids)
            await deleted
            yield item_ids
        await self._redis.zremrangebyscore(key, "-inf", before_ms)

    async def catalogue_size(self) -> int:
        return int(await self._redis.zcard(self._names.catalogue()))

    async def active_items(self, batch_size: int = 1000) -> AsyncIterator[Mapping[tuple[int, str], ItemActivity]]:
        for member in sorted(await self._redis.smembers(self._names.activity_partitions())):
            partition = int(member)
            members: Any = await self._redis.zrange(self._names.active_items(partition), 0, -1)
            for batch in batched(((partition, member.decode()) for member in members), batch_size):
                found = zip(batch, await self.activities(batch), strict=True)
                yield {key: activity for key, activity in found if activity is not None}

    async def close(self) -> None:
        await self._redis.aclose()


def _scored(key: str, scores: Mapping[str, int]) -> Iterator[Command]:
    """Yield the commands that set members' scores."""
    for part in batched(scores, MEMBERS):
        words: Iterable[str | int] = chain.from_iterable((scores[member], member) for member in part)
        yield "ZADD", key, *words


def _decoded(
    keys: Sequence[str], values: Sequence[bytes | None], decode: Callable[[bytes], Decoded | None]
) -> list[Decoded | None]:
    """Return decoded values, None where one is damaged: that user or item starts from scratch, the others are unaffected."""
    try:
        return [None if value is None else decode(value) for value in values]
    except ValueError:
        return [
            None if value is None else _decoded_alone(key, value, decode)
            for key, value in zip(keys, values, strict=True)
        ]


def _decoded_alone(key: str, value: bytes, decode: Callable[[bytes], Decoded | None]) -> Decoded | None:
    try:
        return decode(value)
    except ValueError as error:
        log.error("Redis key %s is damaged or of another release, so it is taken as empty: %s", key, error)
        return None


def _encode_item(stored: StoredItem | Deletion) -> bytes:
    body = stored.item.to_wire() if isinstance(stored, StoredItem) else b""
    return b"%d %d " % (stored.partition, stored.offset) + body


@lru_cache(DECODED_ITEMS)
def _decode_item(data: bytes) -> StoredItem | None:
    partition, offset, body = data.split(b" ", 2)
    return StoredItem(Item.model_validate(json.loads(body)), int(partition), int(offset)) if body else None


def _decode_offset(data: bytes) -> tuple[int, int]:
    partition, offset, _ = data.split(b" ", 2)
    return int(partition), int(offset)

"""What grows with the number of users: `python -m benchmarks.growth`.

Redis holds records of so many simulated users, each with a full history. For users at random: the features of one query, of
256 users of a notification job at once, and the fold of 256 engagements with its reads and writes.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import click
import numpy as np
from redis import Redis

from benchmarks.harness import record
from benchmarks.items import NOW_MS
from benchmarks.start import full_record, topics_of
from headwater.events import Engagement, Item
from headwater.names import ENGAGEMENTS
from headwater.settings import Settings
from headwater.stores import FeatureWrites, RedisFeatureStore
from headwater.stores.protocol import StoredItem
from headwater.user_state import HISTORY_LENGTH
from serving.retrieval import USERS_AT_ONCE
from streams.engagements import EngagementFold
from streams.record import Outgoing, Record
from streams.report import Report
from tests.services import RedisService

LATER_MS = NOW_MS + 1_000
ITEMS, ITEM_ID = 1_000, "item-{}"
AT_ONCE = 2_000
REPEATS = 200


@click.command()
@click.option(
    "--users", "sizes", type=click.IntRange(USERS_AT_ONCE), multiple=True, default=(1_000, 10_000, 100_000, 1_000_000)
)
def main(sizes: tuple[int, ...]) -> None:
    """Measure and keep the figures."""
    rows = [asyncio.run(_row(size)) for size in sizes]
    click.echo(json.dumps(rows, indent=1))
    record("growth", {"runs": REPEATS, "rows": rows})


async def _row(users: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    with RedisService() as redis, Redis.from_url(redis.url) as client:
        client.config_set("appendonly", "no")
        store = RedisFeatureStore.of(Settings.model_validate({"redis_url": redis.url}))
        await _fill(store, users)
        row: dict[str, Any] = {"users": users, "redis_mb": round(client.info("memory")["used_memory"] / 2**20)}
        fold, offsets = EngagementFold(store, _Nowhere(), Report(), lambda: LATER_MS), count(HISTORY_LENGTH)

        async def engage(user_ids: Sequence[str]) -> None:
            tell = await fold.apply([_engagement(user_id, next(offsets)) for user_id in user_ids])
            await tell()

        row["query_us"] = await _timed(store.users_and_delivered, users, 1, random)
        row["job_us_a_user"] = await _timed(store.users_and_delivered, users, USERS_AT_ONCE, random)
        row["fold_us_an_event"] = await _timed(engage, users, USERS_AT_ONCE, random)
        await store.close()
    click.echo(json.dumps(row), err=True)
    return row


async def _fill(store: RedisFeatureStore, users: int) -> None:
    items = [
        Item(item_id=ITEM_ID.format(number), topics=topics_of(number), published_at=NOW_MS) for number in range(ITEMS)
    ]
    await store.commit(FeatureWrites(items={item.item_id: StoredItem(item, 0, 0) for item in items}))
    known = full_record(ITEM_ID)
    for start in range(0, users, AT_ONCE):
        names = range(start, min(start + AT_ONCE, users))
        await store.commit(FeatureWrites(users={f"user-{name}": known for name in names}))


def _engagement(user_id: str, offset: int) -> Record:
    item_id = ITEM_ID.format(offset % ITEMS)
    event = Engagement(event_id=f"e{offset}", user_id=user_id, item_id=item_id, occurred_at=LATER_MS)
    return Record(ENGAGEMENTS, 0, offset, user_id.encode(), event.to_wire())


class _Nowhere:
    """Publishes nothing."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        pass


async def _timed(
    act: Callable[[Sequence[str]], Awaitable[object]], users: int, at_once: int, random: np.random.Generator
) -> float:
    """Return the median microseconds for each of several random users at once."""
    seconds = []
    for _ in range(REPEATS):
        user_ids = [f"user-{name}" for name in random.choice(users, at_once, replace=False).tolist()]
        begun = time.perf_counter()
        await act(user_ids)
        seconds.append(time.perf_counter() - begun)
    return round(statistics.median(seconds) / at_once * 1e6, 1)


if __name__ == "__main__":
    main()

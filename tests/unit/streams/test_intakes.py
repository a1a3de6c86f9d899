"""The stream's agents on a store in memory: what they publish, and when."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from redis import RedisError

from headwater.events import Engagement, Item
from headwater.generations import Generations
from headwater.item_embedding import parse_embedding_key
from headwater.names import DEAD_LETTERS, ITEM_ACTIVITY, ITEM_EMBEDDINGS, ITEM_SUCCESSIONS
from headwater.stores import FeatureWrites, MemoryFeatureStore
from headwater.stores.protocol import StaleWrites, StoredItem
from headwater.successions import decode_successions
from streams.batches import apply_with_retry
from streams.embedder import Embedder
from streams.engagements import EngagementFold
from streams.items import ItemIntake
from streams.publisher import PublishFailed
from streams.record import Outgoing, Record
from streams.report import Report
from tests.bundles import make_bundle
from tests.registry import Registry

NOW_MS = 1_700_000_000_000
LARGEST_RECORD = 1_000_000
LONG = "\N{GRINNING FACE}" * 250


@dataclass
class Published:
    """A publisher that keeps everything."""

    records: list[Outgoing] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.failing & {record.topic for record in records}:
            raise PublishFailed("no broker")
        self.records += records


def item(item_id: str) -> Item:
    return Item(item_id=item_id, topics=("t",), published_at=NOW_MS)


def engaged(offset: int, item_id: str) -> Record:
    event = Engagement(event_id=f"e{offset}", user_id="u", item_id=item_id, occurred_at=NOW_MS + offset)
    return Record("engagements", 0, offset, b"u", event.to_wire())


async def applied(fold: EngagementFold, records: list[Record]) -> None:
    """Apply a batch and tell of it."""
    tell = await fold.apply(records)
    await tell()


async def test_the_first_items_wait_until_it_is_known_for_which_versions_to_embed(tmp_path: Path) -> None:
    make_bundle(tmp_path, "v1", ["news"])
    registry, published = Registry(["v1", "missing"], unavailable=True), Published()
    embedder = Embedder(cast(Generations, registry), tmp_path)
    intake = ItemIntake(MemoryFeatureStore(), published, Report(), embedder, lambda: NOW_MS)
    record = Record("items", 0, 0, b"a", item("a").to_wire())
    with pytest.raises(RedisError):
        await intake.apply([record])
    registry.unavailable = False
    await intake.apply([record])
    embedded = [each for each in published.records if each.topic == ITEM_EMBEDDINGS]
    assert [parse_embedding_key(each.key or b"") for each in embedded] == [("v1", "a")]
    assert set(embedder.refused) == {"missing"}
    # Whoever could not load a bundle deletes what others embedded with it.
    published.records.clear()
    await intake.apply([Record("items", 0, 1, b"a", None)])
    assert {(each.key, each.value) for each in published.records} == {(b"v1/a", None), (b"missing/a", None)}


async def test_what_is_told_of_long_ids_fits_into_records() -> None:
    store, published = MemoryFeatureStore(), Published()
    items = [Item(item_id=f"{LONG}{number}", topics=("t",), published_at=NOW_MS) for number in range(60)]
    await store.commit(FeatureWrites(items={each.item_id: StoredItem(each, 0, 0) for each in items}))
    fold = EngagementFold(store, published, Report(), lambda: NOW_MS + 10_000)
    events = [
        Engagement(event_id=str(n), user_id="u", item_id=items[n % 60].item_id, occurred_at=NOW_MS + n)
        for n in range(512)
    ]
    await applied(fold, [Record("engagements", 0, n, b"u", event.to_wire()) for n, event in enumerate(events)])
    assert max(len(each.value or b"") for each in published.records) < LARGEST_RECORD
    told = [each for each in published.records if each.topic == ITEM_SUCCESSIONS]
    offsets = [one.offset for each in told for one in decode_successions(each.value or b"")]
    assert offsets == sorted(offsets)
    assert len(offsets) == 512


async def test_what_is_refused_is_kept_though_its_batch_is_repeated_once_it_could_be_accepted() -> None:
    store, published = MemoryFeatureStore(), Published()
    await store.commit(FeatureWrites(items={"old": StoredItem(item("old"), 0, 0)}))
    fold = EngagementFold(store, published, Report(), lambda: NOW_MS + 10_000)
    batch = [engaged(0, "fresh"), engaged(1, "old")]
    published.failing = {ITEM_ACTIVITY}
    with pytest.raises(TimeoutError):  # as a worker that ends meanwhile
        await asyncio.wait_for(applied(fold, batch), 0.05)
    await store.commit(FeatureWrites(items={"fresh": StoredItem(item("fresh"), 0, 1)}))
    published.failing = set()
    await applied(fold, batch)
    (user,) = await store.users(["u"])
    assert user is not None
    assert user.state.item_ids == ("old",)
    assert [each.value for each in published.records if each.topic == DEAD_LETTERS] == [batch[0].value]
    assert (fold.report.applied, fold.report.dead_letters) == (1, 1)


async def test_duplicates_are_not_told_though_telling_fails_at_first() -> None:
    store, published = MemoryFeatureStore(), Published()
    await store.commit(FeatureWrites(items={"i": StoredItem(item("i"), 0, 0)}))
    fold = EngagementFold(store, published, Report(), lambda: NOW_MS + 10_000)
    event = Engagement(event_id="e", user_id="u", item_id="i", occurred_at=NOW_MS).to_wire()
    published.failing = {ITEM_ACTIVITY}
    records = [Record("engagements", 0, offset, b"u", event) for offset in range(3)]
    applying = asyncio.create_task(applied(fold, records))
    await asyncio.sleep(0.05)
    published.failing = set()
    await applying
    told = [each.value or b"" for each in published.records if each.topic == ITEM_SUCCESSIONS]
    assert [one.offset for value in told for one in decode_successions(value)] == [0]
    assert (fold.report.applied, fold.report.duplicates, fold.report.repeated) == (1, 2, 0)


async def test_a_user_whose_engagements_stand_in_two_partitions_loses_none() -> None:
    store = MemoryFeatureStore()
    await store.commit(FeatureWrites(items={"i": StoredItem(item("i"), 0, 0)}))
    workers = [EngagementFold(store, Published(), Report(), lambda: NOW_MS + 10_000) for _ in range(2)]
    for offset in range(10):
        record = engaged(offset, "i")._replace(partition=offset % 2)
        await apply_with_retry(workers[offset % 2].apply, [record])
    (user,) = await store.users(["u"])
    assert user is not None
    assert user.state.engagements == 10


class Interrupted(MemoryFeatureStore):
    """A store on which another worker applies its batch while this one is between reading and storing."""

    between: Callable[[], Awaitable[None]] | None = None

    async def commit(self, writes: FeatureWrites) -> None:
        between, self.between = self.between, None
        if between:
            await between()
        await super().commit(writes)


async def test_a_worker_that_was_put_out_of_its_group_overwrites_nothing() -> None:
    store, records = Interrupted(), [engaged(number, "i") for number in range(10)]
    await store.commit(FeatureWrites(items={"i": StoredItem(item("i"), 0, 0)}))
    former, successor = (EngagementFold(store, Published(), Report(), lambda: NOW_MS + 10_000) for _ in range(2))
    store.between = partial(applied, successor, records)
    with pytest.raises(StaleWrites):
        await former.apply(records[:6])
    await former.apply(records[:6])
    (user,), (activity,) = await store.users(["u"]), await store.activities([(0, "i")])
    assert user is not None
    assert activity is not None
    assert (user.state.engagements, activity.total, user.offset) == (10, 10, records[-1].position)
    assert (former.report.applied, former.report.repeated, successor.report.applied) == (0, 6, 10)


async def test_a_worker_that_was_put_out_of_its_group_brings_no_deleted_item_back(tmp_path: Path) -> None:
    make_bundle(tmp_path, "v1", ["t"])
    store, published = Interrupted(), Published()
    embedder = Embedder(cast(Generations, Registry(["v1"])), tmp_path)
    former, successor = (ItemIntake(store, published, Report(), embedder, lambda: NOW_MS) for _ in range(2))
    stored, deleted = Record("items", 0, 10, b"i", item("i").to_wire()), Record("items", 0, 11, b"i", None)
    store.between = partial(successor.apply, [stored, deleted])
    await apply_with_retry(former.apply, [stored])
    assert await store.items(["i"]) == [None]
    assert [(each.key, each.value) for each in published.records] == [(b"v1/i", None)]
    await former.apply([Record("items", 0, 12, b"i", item("i").to_wire())])
    assert await store.item_offsets(["i"]) == [(0, 12)]


class Expiring(MemoryFeatureStore):
    """A store in which two items are over, one of which came back."""

    async def expired(self, batch_size: int = 1000) -> AsyncIterator[list[str]]:
        yield ["gone", "back"]


async def test_items_that_are_over_leave_every_generation(tmp_path: Path) -> None:
    make_bundle(tmp_path, "v1", ["news"])
    store, published = Expiring(), Published()
    embedder = Embedder(cast(Generations, Registry(["v1"])), tmp_path)
    await embedder.refresh()
    back = Item(item_id="back", topics=("news",), published_at=NOW_MS)
    await store.commit(FeatureWrites(items={"back": StoredItem(back)}))
    await ItemIntake(store, published, Report(), embedder, lambda: NOW_MS).expire()
    newest = {each.key: each.value for each in published.records}
    assert newest[b"v1/gone"] is None
    assert newest[b"v1/back"] is not None

"""A build that something comes in between of."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fakeredis
import numpy as np
import pytest
from redis import RedisError

from headwater.errors import BundleRefused
from headwater.events import Item, now_ms
from headwater.generations import Generations
from headwater.item_embedding import decode_item_embedding, embedding_key
from headwater.names import Names
from headwater.stores import FeatureWrites, MemoryFeatureStore
from headwater.stores.protocol import Deletion, StoredItem
from streams.embedder import Embedder, Refusal
from streams.publisher import Publisher
from streams.rebuild import Rebuild, TakenOver
from streams.record import Outgoing
from tests.bundles import make_bundle
from tests.registry import Registry

ITEMS, D = 1200, 8
PUBLISHED = 10**12
KEY = embedding_key("v1", "0")


class Published:
    """Lets something happen after the first batch."""

    def __init__(self) -> None:
        self.records = 0
        self.keys: list[bytes | None] = []
        self.begun, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        self.records += len(records)
        self.keys += [record.key for record in records]
        self.begun.set()
        await self.may_go_on.wait()


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    generations = Generations(fakeredis.FakeRedis(host=tmp_path.name), Names())
    generations.request("v1")
    return generations


def stored(item_id: str, published_ms: int = PUBLISHED) -> StoredItem:
    return StoredItem(Item(item_id=item_id, topics=("t",), published_at=published_ms))


async def worker(generations: Generations, published: Publisher, known: MemoryFeatureStore | None = None) -> Rebuild:
    """Return a worker whose bundle gives every item the same embedding."""
    items = {str(number): stored(str(number)) for number in range(ITEMS)}
    store = known or MemoryFeatureStore()
    await store.commit(FeatureWrites(items=dict(items)))
    tower = SimpleNamespace(embed=lambda features: np.zeros((len(features["item"]), D), np.float32))
    bundle: Any = SimpleNamespace(vocabulary=SimpleNamespace(item_index={}, topic_index={}), item_tower=tower)
    embedder = Embedder(generations, Path("nowhere"))
    embedder._bundles = {"v1": bundle}
    return Rebuild("builder", store, published, embedder)


async def test_a_generation_that_is_pruned_while_it_is_built_stays_so(
    generations: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.rebuild.SETTLE_S", 0)
    published = Published()
    building = asyncio.create_task((await worker(generations, published))._process(generations.get("v1")))
    await published.begun.wait()
    assert generations.prune("v1")
    published.may_go_on.set()
    with pytest.raises(TakenOver, match="v1 is pruned now"):
        await building
    assert generations.get("v1").state == "pruned"
    assert published.records < ITEMS


async def test_what_another_worker_stored_before_it_had_the_bundle_is_embedded_at_the_end(
    generations: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.rebuild.SETTLE_S", 0)
    published = Published()
    builder = await worker(generations, published)
    store: Any = builder.store
    store._stored_ms = dict.fromkeys(store._stored_ms, 0)
    building = asyncio.create_task(builder._process(generations.get("v1")))
    await published.begun.wait()
    await builder.store.commit(FeatureWrites(items={"late": stored("late")}))
    published.may_go_on.set()
    await building
    assert published.records == ITEMS + 1
    assert published.keys[-1] == embedding_key("v1", "late")


class Overtaking:
    """Item "0" changes while its embedding is being published: the item agent's record is there before the builder's."""

    def __init__(self, changes: list[StoredItem | Deletion]) -> None:
        self.store, self.changes, self.newest = MemoryFeatureStore(), changes, dict[bytes | None, bytes | None]()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.changes and any(record.key == KEY for record in records):
            changed = self.changes.pop(0)
            await self.store.commit(FeatureWrites(items={"0": changed}))
            self.newest[KEY] = b"the item agent's"
        self.newest |= {record.key: record.value for record in records}


@pytest.mark.parametrize("last", [PUBLISHED + 4, None], ids=["changed", "deleted"])
async def test_an_item_that_changes_again_while_its_change_is_published_is_published_as_it_is(
    generations: Generations, monkeypatch: pytest.MonkeyPatch, last: int | None
) -> None:
    monkeypatch.setattr("streams.rebuild.SETTLE_S", 0)
    changes = [stored("0", PUBLISHED + change) for change in (1, 2, 3)]
    published = Overtaking([*changes, Deletion() if last is None else stored("0", last)])
    builder = await worker(generations, published, published.store)
    await builder._process(generations.get("v1"))
    newest = published.newest[KEY]
    assert len(published.newest) == ITEMS
    assert (newest and decode_item_embedding("0", newest).published_at) == last


async def test_whoever_refuses_a_bundle_that_another_one_builds_says_nothing(
    generations: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.rebuild.SETTLE_S", 0)
    published, as_requested = Published(), generations.get("v1")
    building = asyncio.create_task((await worker(generations, published))._process(as_requested))
    await published.begun.wait()
    other = await worker(generations, Published())
    other.embedder._bundles.clear()
    other.embedder.refused = {"v1": Refusal(BundleRefused("v1: cannot be read"), 0.0)}
    await other._process(as_requested)
    published.may_go_on.set()
    await building
    assert generations.get("v1").state == "built"
    assert len(set(published.keys)) == ITEMS


async def test_a_worker_whose_bundle_came_late_embeds_what_it_stored_meanwhile(
    generations: Generations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.embedder.SETTLE_S", 0.01)
    store, published = MemoryFeatureStore(), Published()
    published.may_go_on.set()
    embedder = Embedder(generations, tmp_path)
    rebuild = Rebuild("late", store, published, embedder)
    await embedder.refresh()
    generations.update(
        "v1", lambda known: known.model_copy(update={"state": "built"})
    )  # by a worker that has the bundle
    await store.commit(FeatureWrites(items={"meanwhile": stored("meanwhile")}))
    await asyncio.sleep(0.02)
    await embedder.refresh()
    await rebuild.run_pending()
    assert published.keys == []
    make_bundle(tmp_path, "v1", ["t"])
    await embedder.refresh()
    await rebuild.run_pending()
    await rebuild.run_pending()
    assert published.keys == [embedding_key("v1", "meanwhile")]


async def test_a_worker_that_has_a_bundle_in_time_leaves_everything_to_the_builder(
    generations: Generations, tmp_path: Path
) -> None:
    make_bundle(tmp_path, "v1", ["t"])
    make_bundle(tmp_path, "v2", ["t"])
    embedder = Embedder(generations, tmp_path)
    await embedder.refresh()
    generations.request("v2")
    await embedder.refresh()
    assert embedder.versions == ["v1", "v2"]
    assert embedder.missed == {}


async def test_a_registry_that_could_not_be_read_hides_nothing_that_was_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.embedder.SETTLE_S", 0.01)
    make_bundle(tmp_path, "v1", ["t"])
    make_bundle(tmp_path, "v2", ["t"])
    registry = Registry(["v1"])
    embedder = Embedder(cast(Generations, registry), tmp_path)
    await embedder.refresh()
    read_ms = now_ms()
    await asyncio.sleep(0.02)
    registry.unavailable = True
    with pytest.raises(RedisError):
        await embedder.refresh()
    registry.unavailable, registry.versions = False, ["v1", "v2"]
    await embedder.refresh()
    assert embedder.missed["v2"] <= read_ms

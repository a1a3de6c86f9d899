"""Generations as a server holds them: what is followed, what answers, what is skipped."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import generate_latest
from redis import RedisError

from headwater.activity import ItemActivity
from headwater.delivered import Delivered
from headwater.errors import NoLiveGeneration, UnknownTopic
from headwater.generations import Generations
from headwater.index import ItemIndex, Relevance, item_index
from headwater.item_covisits import ItemCovisits
from headwater.item_embedding import ItemEmbedding, embedding_key, encode_item_embedding
from headwater.stores import MemoryFeatureStore
from headwater.user_record import UserRecord
from serving.batching import Batcher
from serving.clock import Clock
from serving.followed import Followed
from serving.loaded import REQUEST_MARGIN_MS, LoadedGenerations, ServingPair
from serving.metrics import Metrics
from serving.retrieval import Answer, Filters, Retrieval, TopicQuery
from serving.state import State
from streams.follower import Start
from streams.record import Record
from tests.bundles import make_bundle
from tests.folding import counted
from tests.registry import Registry

TOPICS = ["news", "sport"]
NOW_MS = 1_700_000_000_000
REQUESTED_MS = NOW_MS - 1000
D = 8


@dataclass
class World:
    registry: Registry
    loaded: LoadedGenerations
    followed: Followed
    retrieval: Retrieval
    offset: int = 0

    async def follow(self, version: str, item_id: str, *topics: str, value: bytes | None = b"") -> None:
        embedding = np.random.default_rng(len(item_id)).normal(size=D).astype(np.float32)
        if value == b"":
            value = encode_item_embedding(ItemEmbedding(item_id, topics, NOW_MS, embedding))
        key = embedding_key(version, item_id)
        record = Record("item-embeddings", 0, self.offset, key, value, appended_ms=NOW_MS)
        await self.followed.on_embeddings([record])
        self.offset += 1

    async def ask(self, topic: str | None, pair: ServingPair | None = None) -> Answer:
        (answer,) = await self.retrieval.answers([TopicQuery("u", topic, 10, Filters())], pair)
        return answer


@pytest.fixture
def world(tmp_path: Path) -> World:
    for seed, version in enumerate(("v1", "v2")):
        make_bundle(tmp_path / "onnx", version, TOPICS, seed=seed, dimension=D)
    registry, clock, metrics = Registry(requested_ms=REQUESTED_MS), Clock("wall"), Metrics()
    loaded = LoadedGenerations(cast(Generations, registry), tmp_path / "onnx", tmp_path / "snapshots")
    followed = Followed(loaded, clock, metrics)
    loaded.initialise = followed.fill
    return World(registry, loaded, followed, Retrieval(loaded, MemoryFeatureStore(), followed.covisits, clock))


async def promoted(world: World, version: str) -> None:
    world.registry.versions.append(version)
    world.registry.live = version
    await world.loaded.poll()


async def test_nothing_answers_before_a_promotion(world: World) -> None:
    with pytest.raises(NoLiveGeneration, match="headwater train"):
        await world.ask("news")


async def test_an_answer_in_parts_stays_with_its_generation(world: World) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "a", "news")
    begun = world.loaded.live
    await promoted(world, "v2")
    await world.follow("v2", "b", "news")
    assert (await world.ask("news", begun)).provenance.bundle_version == "v1"
    assert (await world.ask("news", begun)).candidates.item_ids == ["a"]
    assert (await world.ask("news")).provenance.bundle_version == "v2"
    assert (await world.ask("news")).candidates.item_ids == ["b"]


async def test_a_server_is_ready_once_all_it_follows_is_read(world: World) -> None:
    settings: Any = None
    state = State(settings, settings, world.loaded, world.followed, world.retrieval, settings, settings, settings)
    state.following = lambda: True
    await promoted(world, "v1")
    assert state.not_ready() is None, "where logs are empty nothing is waited for"
    world.followed.targets = {0: 1}
    world.followed.unread = {("item-activity", 0): range(5, 5), ("item-successions", 1): range(7, 9)}
    assert state.not_ready() == "catching up with Kafka: 3 records left"
    await world.follow("v1", "a", "news")
    await world.followed.on_activity([Record("item-activity", 0, 5, b"0", b"")])
    await world.followed.on_successions([Record("item-successions", 1, 7, b"0", b"")])
    assert state.not_ready() == "catching up with Kafka: 1 records left"
    await world.followed.on_successions([Record("item-successions", 1, 8, b"0", b"broken")])
    assert state.not_ready() is None


async def test_an_answer_tells_the_index_apart_from_the_bundle(world: World, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        await promoted(world, version)
        await world.follow(version, "a", "news")
    await world.loaded.snapshot(world.followed.applied)
    answer = await world.ask("news")
    assert (answer.provenance.bundle_version, answer.provenance.generation) == ("v2", "v2")
    restored = LoadedGenerations(world.loaded.generations, world.loaded.model_dir, tmp_path / "snapshots")
    await restored.restore()
    mixed = await world.ask("news", ServingPair(world.loaded.pair("v1").bundle, restored.pair("v2").index))
    document = json.loads(mixed.to_json())
    assert (document["bundle_version"], document["generation"]) == ("v1", "v2")


async def test_a_bundle_that_comes_late_is_held_at_once(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await promoted(world, "v3")
    for _ in range(3):
        await world.loaded.poll()
    assert [entry.message for entry in caplog.records if "no bundle here" in entry.message] == caplog.messages[:1]
    make_bundle(tmp_path / "onnx", "v3", TOPICS, dimension=D)
    await world.loaded.poll()
    assert world.loaded.live.version == "v3"


async def test_topics_get_cells_as_they_become_wide(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_TOPIC_LIMIT", 2)
    await promoted(world, "v1")
    for item_id in "abc":
        await world.follow("v1", item_id, "news")
    before = (await world.ask("news")).candidates.item_ids
    world.followed.targets = {0: 100}  # there is more to read: inserts shall not wait
    await world.followed.learn_cells()
    assert world.loaded.live.index.topics_needing_cells() == ["news"]
    world.followed.targets = {}
    await world.followed.learn_cells()
    assert world.loaded.live.index.topics_needing_cells() == []
    assert (await world.ask("news")).candidates.item_ids == before


async def test_the_previous_one_answers_while_the_promoted_cannot_be_held(world: World) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "a", "news")
    await promoted(world, "missing")
    assert (await world.ask("news")).provenance.bundle_version == "v1"
    assert world.loaded.wanted == "missing"
    assert "no bundle here" in (world.loaded.fallback_reason or "")
    assert "this server answers with v1" in (world.loaded.fallback_reason or "")


async def test_the_previous_one_answers_after_a_restart_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await promoted(world, "v1")
    world.registry.previous = "v1"
    await promoted(world, "v2")
    (world.loaded.model_dir / "v2" / "manifest.json").write_text("{")
    loaded = LoadedGenerations(world.loaded.generations, world.loaded.model_dir, world.loaded.snapshot_dir)
    await loaded.restore()
    await loaded.poll()
    assert (loaded.live.version, loaded.wanted) == ("v1", "v2")
    assert "generation v2 cannot be loaded here: v2: manifest.json is broken" in (loaded.fallback_reason or "")
    assert loaded.fallback_reason in caplog.messages
    (world.loaded.model_dir / "v1" / "manifest.json").unlink()
    loaded = LoadedGenerations(world.loaded.generations, world.loaded.model_dir, world.loaded.snapshot_dir)
    await loaded.restore()
    await loaded.poll()
    with pytest.raises(NoLiveGeneration, match=r"v2 cannot be loaded here: v2: manifest\.json is broken"):
        loaded.live  # noqa: B018


async def test_a_bundle_that_was_away_at_the_start_is_not_held_without_its_items(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for version in ("v1", "v2"):
        await promoted(world, version)
        await world.follow(version, "a", "news")
    await world.loaded.snapshot(world.followed.applied)
    model_dir, registry = world.loaded.model_dir, world.loaded.generations
    (model_dir / "v2").rename(model_dir.with_name("away"))
    loaded = LoadedGenerations(registry, model_dir, world.loaded.snapshot_dir)
    await loaded.restore()
    model_dir.with_name("away").rename(model_dir / "v2")
    monkeypatch.setattr("serving.loaded.RETRY_S", 0.0)
    await loaded.poll()
    assert list(loaded.pairs) == ["v1"]
    assert (
        "v2: some of its embeddings were skipped before its bundle could be loaded; restart this server" in caplog.text
    )
    loaded = LoadedGenerations(registry, model_dir, world.loaded.snapshot_dir)
    await loaded.restore()
    assert {version: len(pair.index) for version, pair in loaded.pairs.items()} == {"v1": 1, "v2": 1}


async def test_records_of_a_new_generation_wait_for_the_registry(world: World) -> None:
    await promoted(world, "v1")
    world.registry.versions.append("v2")
    world.registry.unavailable = True
    with pytest.raises(RedisError):
        await world.follow("v2", "a", "news")
    world.registry.unavailable = False
    await world.follow("v2", "a", "news")
    assert "a" in world.loaded.pair("v2").index


async def test_a_pruned_generation_goes_and_its_records_are_skipped(world: World) -> None:
    await promoted(world, "v1")
    await promoted(world, "v2")
    world.registry.versions.remove("v1")
    world.registry.pruned.append("v1")
    await world.loaded.poll()
    assert set(world.loaded.pairs) == {"v2"}
    await world.follow("v1", "a", "news")
    assert world.followed.applied == {0: 1}


async def test_a_register_that_lost_everything_takes_nothing_with_it(world: World, tmp_path: Path) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "a", "news")
    await world.loaded.snapshot(world.followed.applied)
    world.registry.versions, world.registry.live = [], None
    await world.loaded.poll()
    assert (await world.ask("news")).candidates.item_ids == ["a"]
    fresh = LoadedGenerations(cast(Generations, world.registry), tmp_path / "onnx", tmp_path / "snapshots")
    assert await fresh.restore() == Start(None, None)
    await promoted(world, "v1")
    await world.follow("v1", "bb", "news")
    assert set((await world.ask("news")).candidates.item_ids) == {"a", "bb"}
    await fresh.restore()
    assert "a" in fresh.pair("v1").index, "its snapshot is still there"


async def test_a_generation_whose_records_were_skipped_is_not_held_in_part(world: World) -> None:
    await promoted(world, "v1")
    await world.follow("v2", "a", "news")
    await promoted(world, "v2")
    assert set(world.loaded.pairs) == {"v1"}
    assert (await world.ask(None)).provenance.bundle_version == "v1"


async def test_what_answers_is_kept_up_even_when_it_is_pruned(world: World) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "a", "news")
    await promoted(world, "missing")
    world.registry.versions.remove("v1")
    world.registry.pruned.append("v1")
    await world.loaded.poll()
    await world.follow("v1", "bb", "news")
    assert set((await world.ask("news")).candidates.item_ids) == {"a", "bb"}


async def test_a_registry_that_is_unavailable_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await promoted(world, "v1")
    caplog.set_level("INFO")
    world.registry.unavailable = True
    for _ in range(3):
        await world.loaded.poll()
    world.registry.unavailable = False
    for _ in range(3):
        await world.loaded.poll()
    assert [entry.levelname for entry in caplog.records] == ["ERROR", "INFO"]


async def test_a_bundle_that_cannot_be_read_stops_nothing_else(world: World, tmp_path: Path) -> None:
    await promoted(world, "v1")
    (tmp_path / "onnx" / "broken" / "manifest.json").mkdir(parents=True)
    world.registry.versions.append("broken")
    await promoted(world, "v2")
    assert world.loaded.live.version == "v2"


async def test_one_embedding_of_another_dimension_takes_none_of_its_neighbours_along(world: World) -> None:
    await promoted(world, "v1")
    wide = ItemEmbedding("wide", ("news",), NOW_MS, np.zeros(D + 1, dtype=np.float32))
    good = ItemEmbedding("good", ("news",), NOW_MS, np.ones(D, dtype=np.float32))
    await world.followed.on_embeddings(
        [
            Record("item-embeddings", 0, offset, embedding_key("v1", item.item_id), encode_item_embedding(item))
            for offset, item in enumerate((wide, good))
        ]
    )
    assert (await world.ask("news")).candidates.item_ids == ["good"]


async def test_activity_of_items_that_are_gone_is_forgotten(world: World) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "a", "news")
    world.followed.set_activities({(0, each): counted(ItemActivity(), (1000, 1)) for each in ("a", "gone")})
    await world.followed.forget_activity(2000)
    later = ItemIndex(D)
    world.followed.fill(later)
    assert set(later._activities) == {"a"}


async def test_metrics_speak_of_what_is_held(world: World) -> None:
    await promoted(world, "v1")
    await promoted(world, "v2")
    world.followed.publish_metrics()
    world.registry.versions.remove("v1")
    world.registry.pruned.append("v1")
    await world.loaded.poll()
    world.followed.publish_metrics()
    exported = generate_latest(world.followed.metrics.registry).decode()
    assert 'version="v2"' in exported
    assert 'version="v1"' not in exported
    assert "# HELP headwater_queries_total Users asked for, answered or failed" in exported


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        b"\x02" * 20,
        b"\x01\x02\x00\x00\x00\x00\x00{}",
        b"\x01\x02\x00\x00\x00\x00\x00[]",
        encode_item_embedding(ItemEmbedding("bad", ("news",), NOW_MS, np.full(D, np.nan, dtype=np.float32))),
        encode_item_embedding(ItemEmbedding("bad", ("news",), NOW_MS, np.zeros(D + 1, dtype=np.float32))),
    ],
)
async def test_broken_embeddings_are_skipped(world: World, value: bytes) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "bad", value=value)
    await world.follow("v1", "good", "news")
    assert (await world.ask("news")).candidates.item_ids == ["good"]


async def test_a_snapshot_continues_where_it_was_taken(world: World, tmp_path: Path) -> None:
    await promoted(world, "v1")
    for name in ("a", "bb", "ccc"):
        await world.follow("v1", name, "news")
    await world.follow("v1", "bb", value=None)
    await world.loaded.snapshot(world.followed.applied)
    before = await world.ask("news")
    loaded = LoadedGenerations(cast(Generations, world.registry), tmp_path / "onnx", tmp_path / "snapshots")
    assert await loaded.restore() == Start({0: 4}, None)
    await loaded.poll()
    retrieval = Retrieval(loaded, MemoryFeatureStore(), ItemCovisits(), Clock("wall"))
    (after,) = await retrieval.answers([TopicQuery("u", "news", 10, Filters())])
    assert after.candidates.item_ids == before.candidates.item_ids
    world.registry.versions.append("v2")
    again = LoadedGenerations(cast(Generations, world.registry), tmp_path / "onnx", tmp_path / "snapshots")
    start = await again.restore()
    assert start == Start({0: 4}, REQUESTED_MS - REQUEST_MARGIN_MS), (
        "one without a snapshot begins when it was requested"
    )


async def test_topics_the_bundle_never_saw_are_still_answered(world: World) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "a", "brand-new-topic")
    assert (await world.ask("brand-new-topic")).candidates.item_ids == ["a"]
    with pytest.raises(UnknownTopic) as caught:
        await world.ask("brand-new-topics")
    assert caught.value.near == ["brand-new-topic"]


async def test_inside_an_exact_filter_a_condition_that_steers_is_not_heard(world: World) -> None:
    await promoted(world, "v1")
    for number in range(5):
        await world.follow("v1", "x" * (number + 1), "news")
    plain = world.loaded.live
    manifest = plain.bundle.manifest.model_copy(update={"topical": D})
    steered = ServingPair(replace(plain.bundle, manifest=manifest), plain.index)

    async def scores(pair: ServingPair, topic: str | None, relevance: Relevance) -> dict[str, float]:
        (answer,) = await world.retrieval.answers([TopicQuery("u", topic, 10, Filters(relevance))], pair)
        return dict(zip(answer.candidates.item_ids, answer.candidates.scores.tolist(), strict=True))

    alone, conditioned = await scores(plain, None, Relevance.OFF), await scores(plain, "news", Relevance.OFF)
    assert alone != pytest.approx(conditioned, abs=1e-3)
    assert await scores(plain, "news", Relevance.TOPIC) == pytest.approx(conditioned, abs=1e-4)
    assert await scores(steered, "news", Relevance.OFF) == pytest.approx(conditioned, abs=1e-4)
    assert await scores(steered, "news", Relevance.TOPIC) == pytest.approx(alone, abs=1e-4)


async def test_queries_that_wait_together_are_answered_as_if_alone(world: World) -> None:
    await promoted(world, "v1")
    for number in range(30):
        await world.follow("v1", "x" * (number + 1), TOPICS[number % 2])
    queries = [TopicQuery(f"u{number}", TOPICS[number % 2], 1 + number % 7, Filters()) for number in range(150)]
    alone = [(await world.retrieval.answers([query]))[0] for query in queries]
    batcher = Batcher(world.retrieval)
    together = await asyncio.gather(*(batcher.answer(query) for query in queries))
    assert [each.candidates.item_ids for each in together] == [each.candidates.item_ids for each in alone]
    assert [each.user_id for each in together] == [query.user_id for query in queries]
    with pytest.raises(UnknownTopic):
        await batcher.answer(TopicQuery("u", "nothing", 1, Filters()))


async def test_a_topic_that_vanishes_fails_its_own_query_alone(world: World) -> None:
    await promoted(world, "v1")
    await world.follow("v1", "a", "news")
    await world.follow("v1", "bb", "sport")
    batcher = Batcher(world.retrieval)
    waiting = [asyncio.create_task(batcher.answer(TopicQuery("u", topic, 5, Filters()))) for topic in TOPICS]
    await asyncio.sleep(0)
    await world.follow("v1", "bb", value=None)
    news, sport = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(news, Answer)
    assert news.candidates.item_ids == ["a"]
    assert isinstance(sport, UnknownTopic)


class Watched(MemoryFeatureStore):
    """Takes a turn of the event loop for each reading, and counts those that began and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.ended = 0
        self.fails_at = -1

    async def users_and_delivered(
        self, user_ids: Sequence[str]
    ) -> tuple[list[UserRecord | None], list[Delivered | None]]:
        self.begun += 1
        number = self.begun
        await asyncio.sleep(0.001)
        if number == self.fails_at:
            raise RedisError("away")
        self.ended += 1
        return await super().users_and_delivered(user_ids)


async def test_the_next_users_are_looked_up_while_others_are_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.retrieval.USERS_AT_ONCE", 2)
    await promoted(world, "v1")
    await world.follow("v1", "a", "news")
    users, store = [f"u{number}" for number in range(5)], Watched()
    retrieval = replace(world.retrieval, store=store)
    answered = []
    async for answers in retrieval.all_answers(users, "news", 1, Filters(), world.loaded.live):
        answered += [answer.user_id for answer in answers]
        assert store.begun == min(3, len(answered) // 2 + 1)
    assert answered == users

    abandoned: Any = retrieval.all_answers(users, "news", 1, Filters(), world.loaded.live)
    await anext(abandoned)
    ended = store.ended
    await abandoned.aclose()
    await asyncio.sleep(0.01)
    assert store.ended == ended, "what nobody waits for any more is not read"

    store.fails_at = store.begun + 2
    broken = retrieval.all_answers(users, "news", 1, Filters(), world.loaded.live)
    assert len(await anext(broken)) == 2
    with pytest.raises(RedisError):
        await anext(broken)

"""Where topics lie, and that an answer about everything comes from all of them."""

import numpy as np
import pytest

from headwater.activity import ItemActivity
from headwater.durations import DAY_MS
from headwater.features import STREAMING
from headwater.index import ItemIndex, item_index
from headwater.index.block import Block
from headwater.index.topic_bounds import TopicBounds
from headwater.item_embedding import ItemEmbedding

D = 32
CLUSTERS, SIZE = 40, 100
K = 10
NOW_MS = 1_700_000_000_000
LONG_AGO_MS = NOW_MS - 90 * DAY_MS


def test_centroid_and_spread_follow_what_comes_changes_and_goes() -> None:
    random = np.random.default_rng(0)
    block, kept = Block(D), {}
    for number in range(300):
        item_id, embedding = f"i{number % 200}", random.normal(3.0, 2.0, size=D).astype(np.float32)
        block.put(item_id, embedding, LONG_AGO_MS, ItemActivity())
        kept[item_id] = embedding
    for number in range(0, 200, 3):
        block.remove(f"i{number}")
        del kept[f"i{number}"]
    embeddings = np.stack(list(kept.values()))
    assert block.centroid() == pytest.approx(embeddings.mean(axis=0), abs=1e-5)
    assert block.spread() == pytest.approx(np.sqrt(embeddings.var(axis=0).mean()), rel=1e-4)


def test_a_wide_topic_promises_more_than_a_narrow_one_at_the_same_place() -> None:
    random = np.random.default_rng(0)
    blocks = {name: Block(D) for name in ("narrow", "wide", "elsewhere")}
    for name, mean, spread in (("narrow", 1.0, 0.1), ("wide", 1.0, 0.5), ("elsewhere", -1.0, 0.5)):
        embeddings = random.normal(mean, spread, size=(SIZE, D)).astype(np.float32)
        item_ids, published_ms = [f"{name}-{row}" for row in range(SIZE)], np.full(SIZE, LONG_AGO_MS)
        blocks[name].fill(item_ids, embeddings, published_ms, np.arange(SIZE))
    assert list(TopicBounds(blocks).promising(np.ones(D, dtype=np.float32))) == ["wide", "narrow", "elsewhere"]


def test_everything_is_found_where_clusters_lie_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_LIMIT", 0)
    random = np.random.default_rng(0)
    centres = 3.0 * random.normal(size=(CLUSTERS, D))
    embeddings = (np.repeat(centres, SIZE, axis=0) + 0.4 * random.normal(size=(CLUSTERS * SIZE, D))).astype(np.float32)
    index = ItemIndex(D)
    index.upsert([
        ItemEmbedding(f"i{row}", (f"t{row // SIZE}", "all"), LONG_AGO_MS, embedding)
        for row, embedding in enumerate(embeddings)
    ])  # fmt: skip
    users = random.normal(size=(50, D)).astype(np.float32)
    found = index.search(np.hstack((users, np.zeros((50, STREAMING), dtype=np.float32))), K, None, NOW_MS)
    recall = 0
    for scores, candidates in zip(users @ embeddings.T, found, strict=True):
        assert len(set(candidates.item_ids)) == K
        assert (np.diff(candidates.scores) <= 0).all()
        recall += sum(
            scores[int(item_id[1:])] >= np.partition(scores, -K)[-K] - 1e-4 for item_id in candidates.item_ids
        )
    assert recall / (50 * K) >= 0.99


def test_items_without_topics_are_searched_by_graph_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_LIMIT", 0)
    index = ItemIndex(D)
    index.upsert([ItemEmbedding(f"i{n}", (), LONG_AGO_MS, np.full(D, n, dtype=np.float32)) for n in range(20)])
    (found,) = index.search(np.ones((1, D + STREAMING), dtype=np.float32), K, None, NOW_MS)
    assert found.item_ids == [f"i{n}" for n in range(19, 9, -1)]


def test_new_topics_are_looked_at_once_enough_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_LIMIT", 0)
    random = np.random.default_rng(0)
    index, user = ItemIndex(D), np.ones((1, D + STREAMING), dtype=np.float32)
    for topic, mean in (("before", 0.0), ("after", 1.0)):
        embeddings = random.normal(mean, 0.5, size=(SIZE, D)).astype(np.float32)
        index.upsert([ItemEmbedding(f"{topic}-{n}", (topic,), LONG_AGO_MS, each) for n, each in enumerate(embeddings)])
        monkeypatch.setattr(index.graph, "search", lambda embedding, k: np.arange(SIZE))
        (found,) = index.search(user, K, None, NOW_MS)
        assert all(item_id.startswith(topic) for item_id in found.item_ids)

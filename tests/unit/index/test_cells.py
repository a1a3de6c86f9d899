"""Cells of a large topic: nothing is lost as rows come, change and go, and what promises most is read first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.activity import ItemActivity
from headwater.durations import DAY_MS
from headwater.features import STREAMING
from headwater.index import ItemIndex, cells, item_index
from headwater.index.block import Block
from headwater.index.cells import Cells
from headwater.item_embedding import ItemEmbedding

D = 16
CLUSTERS, SIZE = 50, 100
K, WANTED = 10, 4
NOW_MS = 1_700_000_000_000
LONG_AGO_MS = NOW_MS - 90 * DAY_MS
Floats = np.ndarray


def clustered(random: np.random.Generator) -> Floats:
    centres = np.repeat(3.0 * random.normal(size=(CLUSTERS, D)), SIZE, axis=0)
    return random.permutation(centres + 0.5 * random.normal(size=centres.shape)).astype(np.float32)


def filled(embeddings: Floats) -> Block:
    block = Block(D)
    rows = np.arange(len(embeddings))
    block.fill([f"i{row}" for row in rows], embeddings, np.full(len(embeddings), LONG_AGO_MS), rows)
    block.cells = Cells.learned(block.embeddings())
    return block


def near(block: Block, user: Floats, k: int) -> Floats:
    assert block.cells
    return block.cells.near(len(block), user, k, WANTED * k)


@given(
    kept=st.integers(1, 12),
    operations=st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 99)), max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_all_rows_are_found_where_there_is_room_for_them(kept: int, operations: list[tuple[bool, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(cells, "STRAYS", 3)
        block = filled(np.random.default_rng(0).normal(size=(kept, D)).astype(np.float32))
        truth = set(block.item_ids)
        for put, number, look in operations:
            if put:
                embedding = np.random.default_rng(look).normal(size=D).astype(np.float32)
                block.put(f"i{number}", embedding, LONG_AGO_MS, ItemActivity())
                truth.add(f"i{number}")
            elif f"i{number}" in block:
                block.remove(f"i{number}")
                truth.remove(f"i{number}")
            user = np.random.default_rng(1).normal(size=D).astype(np.float32)
            rows = near(block, user, 1000)
            assert sorted(block.item_ids[row] for row in rows) == sorted(truth)
            scores = block.embeddings() @ user
            assert not truth or scores[near(block, user, 1)].max() >= scores.max() - 0.2
            assert [block.rows[item_id] for item_id in block.item_ids] == list(range(len(truth)))


def test_a_few_cells_hold_the_best() -> None:
    random = np.random.default_rng(0)
    embeddings = clustered(random)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(cells, "LEAST_READ", len(embeddings) // 10)
        block = filled(embeddings)
        found = 0
        for user in random.normal(size=(100, D)).astype(np.float32):
            scores = block.embeddings() @ user
            rows = near(block, user, K)
            assert len(set(rows)) == len(rows) == WANTED * K
            found += int((scores[rows] >= np.partition(scores, -K)[-K]).sum())
    assert found / (100 * K) >= 0.99


def test_where_all_lie_together_reading_goes_on_until_the_best_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "LEAST_READ", 0)
    random = np.random.default_rng(0)
    block = filled(random.normal(size=(5000, D)).astype(np.float32))
    found = 0
    for user in random.normal(size=(100, D)).astype(np.float32):
        scores = block.embeddings() @ user
        found += int((scores[near(block, user, K)] >= np.partition(scores, -K)[-K]).sum())
    assert found / (100 * K) >= 0.97


def test_of_equal_embeddings_as_many_are_found_as_are_asked_for() -> None:
    block = filled(np.ones((1000, D), dtype=np.float32))
    assert len(set(near(block, np.ones(D, dtype=np.float32), K))) == WANTED * K


def test_a_cluster_that_comes_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "LEAST_READ", 250)
    monkeypatch.setattr(cells, "STRAYS", 500)
    random = np.random.default_rng(0)
    block = filled(clustered(random))
    centre = 3.0 * random.normal(size=D)
    for number in range(4000):
        embedding = (centre + 0.5 * random.normal(size=D)).astype(np.float32)
        block.put(f"late{number}", embedding, LONG_AGO_MS, ItemActivity())
    found = 0
    for user in (centre + 0.5 * random.normal(size=(50, D))).astype(np.float32):
        scores = block.embeddings() @ user
        found += int((scores[near(block, user, K)] >= np.partition(scores, -K)[-K]).sum())
    assert found / (50 * K) >= 0.95


def test_they_are_stale_once_all_rows_have_changed() -> None:
    block = filled(np.zeros((1000, D), dtype=np.float32))
    assert block.cells
    for number in range(1001):
        assert not block.cells.is_stale()
        block.put(f"i{number % 1000}", np.full(D, number + 1, dtype=np.float32), LONG_AGO_MS, ItemActivity())
        block.put(f"i{number % 1000}", np.full(D, number + 1, dtype=np.float32), LONG_AGO_MS, ItemActivity())
    assert block.cells.is_stale()


def test_a_topic_is_searched_exactly_until_its_cells_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_TOPIC_LIMIT", 100)
    index, embeddings = ItemIndex(D), clustered(np.random.default_rng(0))[:200]
    index.upsert([ItemEmbedding(f"i{n}", ("t",), LONG_AGO_MS, each) for n, each in enumerate(embeddings)])
    assert index.topics_needing_cells() == ["t"]
    user = np.hstack((embeddings[:1], np.zeros((1, STREAMING), dtype=np.float32)))
    before = index.search(user, K, "t", NOW_MS)[0]
    index.learn_cells()
    assert index.topics_needing_cells() == []
    assert index.search(user, K, "t", NOW_MS)[0].item_ids == before.item_ids


def test_what_is_near_is_scored_with_its_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = clustered(np.random.default_rng(0))
    users = np.hstack((np.zeros((2, D)), np.ones((2, STREAMING)))).astype(np.float32)
    answers = []
    for limit in (len(embeddings), len(embeddings) - 1):
        monkeypatch.setattr(item_index, "EXACT_TOPIC_LIMIT", limit)
        index = ItemIndex(D)
        for number, embedding in enumerate(embeddings):
            if number % 500 == 0:
                index.set_activity(f"i{number}", ItemActivity((1.0 + number,) * 5, NOW_MS, 1 + number, 1))
            index.upsert([ItemEmbedding(f"i{number}", ("t",), LONG_AGO_MS, embedding)])
        index.learn_cells()
        answers.append(index.search(users, K, "t", NOW_MS)[0])
    exact, near = answers
    assert exact.item_ids == near.item_ids == [f"i{number}" for number in range(4500, -1, -500)]
    assert near.scores == pytest.approx(exact.scores)

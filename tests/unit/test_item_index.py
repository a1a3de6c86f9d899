"""The index: exactness, the fill guarantee, updates and deletes."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.activity import ItemActivity
from headwater.durations import HOUR_MS
from headwater.errors import DimensionMismatch, UnknownTopic
from headwater.features import STREAMING
from headwater.index import ItemIndex, Relevance, block, graph, item_index
from headwater.index.added_scores import AddedRows
from headwater.index.block import Block
from headwater.index.snapshot import read_snapshot, write_snapshot
from headwater.item_embedding import ItemEmbedding

D = 6
NOW_MS = 1_700_000_000_000


def item(number: int, topics: tuple[str, ...] = ("t",), seed: int | None = None, age_h: int = 1) -> ItemEmbedding:
    random = np.random.default_rng(number if seed is None else seed)
    return ItemEmbedding(f"i{number}", topics, NOW_MS - age_h * HOUR_MS, random.normal(size=D).astype(np.float32))


def filled(count: int, topics: int = 3) -> ItemIndex:
    index = ItemIndex(D)
    index.upsert([item(number, (f"t{number % topics}",)) for number in range(count)])
    return index


def query(seed: int = 0, streaming: float = 0.0) -> np.ndarray:
    static = np.random.default_rng(seed).normal(size=D)
    return np.concatenate((static, np.full(STREAMING, streaming)))[None, :].astype(np.float32)


def test_a_topic_is_searched_exactly() -> None:
    index = filled(300)
    (found,) = index.search(query(), 10, "t1", NOW_MS)
    members = [number for number in range(300) if number % 3 == 1]
    scores = {f"i{number}": float(item(number).embedding @ query()[0, :D]) for number in members}
    assert found.item_ids == sorted(scores, key=lambda item_id: -scores[item_id])[:10]
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("exact_topic_limit", [100, 3])
@given(
    operations=st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 2)), max_size=60),
    k=st.integers(1, 40),
    excluded=st.sets(st.integers(0, 30), max_size=10),
)
@settings(max_examples=50, deadline=None)
def test_k_candidates_whenever_k_are_eligible(
    exact_topic_limit: int, operations: list[tuple[bool, int, int]], k: int, excluded: set[int]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(item_index, "EXACT_TOPIC_LIMIT", exact_topic_limit)
        check_k_candidates_whenever_k_are_eligible(operations, k, excluded)


def check_k_candidates_whenever_k_are_eligible(
    operations: list[tuple[bool, int, int]], k: int, excluded: set[int]
) -> None:
    index, truth = ItemIndex(D), {}
    for insert, number, topic in operations:
        if insert:
            index.upsert([item(number, (f"t{topic}",), seed=number * 7 + topic)])
            index.learn_cells()
            truth[number] = topic
        else:
            index.delete([f"i{number}"])
            truth.pop(number, None)
    assert len(index) == len(truth) == len(index.graph)
    out = {f"i{number}" for number in excluded}
    for topic in range(3):
        eligible = {f"i{number}" for number, its in truth.items() if its == topic} - out
        if index.has_topic(f"t{topic}"):
            (found,) = index.search(query(), k, f"t{topic}", NOW_MS, exclude=[out])
            assert len(found.item_ids) == min(k, len(eligible))
            assert set(found.item_ids) <= eligible
    (anywhere,) = index.search(query(), k, None, NOW_MS, exclude=[out])
    assert len(anywhere.item_ids) == min(k, len({f"i{number}" for number in truth} - out))


@given(operations=st.lists(st.tuples(st.sampled_from("pppds"), st.integers(0, 30), st.integers(0, 5)), max_size=80))
@settings(max_examples=100, deadline=None)
def test_the_graph_knows_rows_whatever_moves(operations: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, TemporaryDirectory() as directory:
        monkeypatch.setattr(graph, "MIN_DEAD", 1)
        index = ItemIndex(D)
        for operation, number, seed in operations:
            if operation == "p":
                index.upsert([item(number, seed=seed), item(number + 1, seed=number)])
            elif operation == "d":
                index.delete([f"i{number}"])
            elif len(index):
                index, _ = read_snapshot(write_snapshot(Path(directory), "v", index, {}))
        embeddings = index.embeddings(None)
        assert index.graph.nodes == len(np.unique(embeddings, axis=0))
        assert sorted(index.graph.search(query()[0, :D], 100).tolist()) == list(range(len(index)))
        for asked in embeddings:
            (best, *_) = index.graph.search(asked, 1)
            assert embeddings[best] @ asked == pytest.approx((embeddings @ asked).max(), abs=1e-5)


def test_large_corpora_are_searched_by_graph_with_the_same_guarantee(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_LIMIT", 100)
    index = filled(2000)
    index.set_activity("i7", ItemActivity((50.0,) * 5, NOW_MS, 50, 1))
    (found,) = index.search(query(streaming=100.0), 20, None, NOW_MS)
    assert len(found.item_ids) == 20
    assert found.item_ids[0] == "i7", "recently active items are always considered"
    (everything,) = index.search(query(), 2000, None, NOW_MS)
    assert len(everything.item_ids) == 2000


@pytest.mark.parametrize("shared", [0, 10**9])
def test_many_users_get_what_each_gets_alone(shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "SHARED", shared)
    index = filled(60)
    users = np.concatenate([query(seed=seed) for seed in range(20)])
    excluded = [{f"i{place}", "unknown"} for place in range(20)]
    together = index.search(users, 5, None, NOW_MS, exclude=excluded)
    for user, out, each in zip(users, excluded, together, strict=True):
        (alone,) = index.search(user[None, :], 5, None, NOW_MS, exclude=[out])
        assert each.item_ids == alone.item_ids
        assert each.scores == pytest.approx(alone.scores, rel=1e-5)
        assert not out & set(each.item_ids)


def test_streaming_features_are_those_of_the_query_s_time() -> None:
    index = filled(9)
    index.set_activity("i4", ItemActivity((8.0,) * 5, NOW_MS, 8, 1))
    first = index.search(query(streaming=1.0), 3, "t1", NOW_MS)[0]
    later = index.search(query(streaming=1.0), 3, "t1", NOW_MS + 48 * HOUR_MS)[0]
    assert first.scores[first.item_ids.index("i4")] > later.scores[later.item_ids.index("i4")]


def test_activity_may_come_before_its_item() -> None:
    index = ItemIndex(D)
    index.set_activity("i1", ItemActivity((8.0,) * 5, NOW_MS, 8, 1))
    index.upsert([item(0), item(1)])
    assert index.search(query(streaming=10.0), 1, "t", NOW_MS)[0].item_ids == ["i1"]


def test_an_index_like_another_knows_its_activity_and_nothing_else() -> None:
    former = filled(200)
    former.set_activity("i1", ItemActivity((8.0,) * 5, NOW_MS, 8, 1))
    index = ItemIndex(D, former)
    assert len(index) == 0
    index.upsert([item(0), item(1)])
    index.set_activity("i0", ItemActivity((9.0,) * 5, NOW_MS, 9, 1))
    assert index.search(query(streaming=10.0), 2, "t", NOW_MS)[0].item_ids == ["i0", "i1"]
    assert former.search(query(streaming=10.0), 1, None, NOW_MS)[0].item_ids == ["i1"]


def test_an_update_moves_an_item_to_its_new_topics() -> None:
    index = filled(9)
    index.upsert([item(0, ("new", "t1"))])
    assert "i0" in index.search(query(), 50, "new", NOW_MS)[0].item_ids
    assert "i0" not in index.search(query(), 50, "t0", NOW_MS)[0].item_ids
    index.delete(["i0"])
    assert not index.has_topic("new")


def test_age_and_relevance_filters() -> None:
    index = ItemIndex(D)
    index.upsert([item(0, age_h=1), item(1, age_h=30), item(2, ("other",))])
    assert index.search(query(), 9, "t", NOW_MS, max_age_ms=2 * HOUR_MS)[0].item_ids == ["i0"]
    assert len(index.search(query(), 9, "t", NOW_MS, relevance=Relevance.OFF)[0].item_ids) == 3
    strict = index.search(query(), 9, "other", NOW_MS, relevance=Relevance.THRESHOLD, min_relevance=0.999)
    assert strict[0].item_ids == ["i2"]


def test_misfits_are_refused() -> None:
    index = filled(3)
    with pytest.raises(DimensionMismatch):
        index.search(np.zeros((1, D), dtype=np.float32), 1, "t0", NOW_MS)
    with pytest.raises(DimensionMismatch):
        index.upsert([ItemEmbedding("x", (), NOW_MS, np.zeros(D + 1, dtype=np.float32))])
    with pytest.raises(UnknownTopic):
        index.search(query(), 1, "nothing", NOW_MS)


def test_unusual_items() -> None:
    index = ItemIndex(D)
    index.upsert([ItemEmbedding("日本/|\u00e9", (), NOW_MS, np.full(D, 100.0, dtype=np.float32))])
    assert index.search(query(), 5, None, NOW_MS)[0].item_ids == ["日本/|\u00e9"]
    assert index.search(query()[:0], 5, None, NOW_MS) == []


class Added(NamedTuple):
    """Added scores by item id, one dictionary a row."""

    scores: list[dict[str, float]]

    def of(self, rows: Sequence[int] | slice) -> "Added":
        return Added(self.scores[rows] if isinstance(rows, slice) else [self.scores[row] for row in rows])

    def add_to(self, scores: npt.NDArray[np.float32], block: Block) -> None:
        more = self.within(block)
        scores[more.owners, more.rows] += more.scores

    def within(self, block: Block) -> AddedRows:
        found = [
            (owner, block.rows[item_id], score)
            for owner, row in enumerate(self.scores)
            for item_id, score in row.items()
            if item_id in block
        ]
        owners, rows, scores = np.array(found).reshape(-1, 3).T
        return AddedRows(owners.astype(np.int64), rows.astype(np.int64), scores.astype(np.float32))


@pytest.mark.parametrize("exact_limit", [1000, 10])
def test_added_scores_lift_single_items(exact_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_LIMIT", exact_limit)
    index = filled(300)
    users = np.vstack((query(0), query(1)))
    plain = index.search(users, 300, None, NOW_MS)
    last = plain[1].item_ids[-1]
    lifted = index.search(users, 5, None, NOW_MS, added=Added([{}, {last: 100.0, "nowhere": 5.0}]))
    assert lifted[0].item_ids == plain[0].item_ids[:5]
    assert lifted[0].scores == pytest.approx(plain[0].scores[:5])
    assert lifted[1].item_ids == [last, *plain[1].item_ids[:4]]
    assert lifted[1].scores[0] == pytest.approx(plain[1].scores[-1] + 100.0, rel=1e-5)


@given(operations=st.lists(st.tuples(st.sampled_from(["put", "delete"]), st.integers(0, 9), st.integers(0, 99))))
def test_a_centroid_is_the_mean_of_what_is_there(operations: list[tuple[str, int, int]]) -> None:
    index = ItemIndex(D)
    for what, number, look in operations:
        if what == "put":
            index.upsert([item(number, seed=look)])
        else:
            index.delete([f"i{number}"])
    if index.has_topic("t"):
        assert index.centroid("t") == pytest.approx(index.everything.embeddings().mean(axis=0), abs=1e-5)

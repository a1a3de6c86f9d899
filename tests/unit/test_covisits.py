"""Co-visitation: the counts equal a plain count over all pairs, and a succession is counted once."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import item_covisits
from headwater.activity import WINDOWS, ItemActivity
from headwater.covisit_features import COVISITS, DEPTH, HALF_LIVES_MS, RETENTION, SUCCESSORS
from headwater.covisits import Covisits
from headwater.events import Engagement
from headwater.index.block import Block
from headwater.item_covisits import ItemCovisits
from headwater.successions import Succession, decode_successions
from headwater.users import Placed, Users
from tests.folding import encoded, succession

T0 = 1_700_000_000_000
events = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 100), st.lists(st.integers(0, 9), min_size=DEPTH, max_size=DEPTH)),
    min_size=1,
    max_size=40,
)


def arrays(log: list[tuple[int, int, list[int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    items, minutes, histories = zip(*log, strict=True)
    return np.array(items), T0 + 60_000 * np.cumsum(minutes), np.array(histories)


def plainly(log: list[tuple[int, int, list[int]]], history: list[int], now_ms: int) -> dict[int, np.ndarray]:
    """Return the features by their definition, over all pairs ever."""
    counts: dict[tuple[int, int], np.ndarray] = defaultdict(lambda: np.zeros(3))
    for item, at_ms, before in zip(*arrays(log), strict=True):
        for position, source in enumerate(before):
            if source and source != item:
                decay = np.exp2(-(now_ms - at_ms) / np.array(HALF_LIVES_MS[:RETENTION]))
                counts[int(source), int(item)] += decay * [position == 0, position == 0, 1]
    features = {}
    for item in range(1, 10):
        rows = [counts.get((source, item), np.zeros(3)) if source else np.zeros(3) for source in history]
        near = sum(row[2] for row in rows)
        if near:
            last, second = rows[0], rows[1]
            features[item] = np.array(
                [
                    *np.log1p(last[:2]),
                    np.log1p(10 * last[1]),
                    last[1] > 0.01,
                    *np.log1p(second[:2]),
                    np.log1p(near),
                    np.log1p(10 * near),
                ]
            )
    return features


@given(events, st.lists(st.integers(0, 9), min_size=DEPTH, max_size=DEPTH), st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_features_equal_their_definition(log: list[tuple[int, int, list[int]]], history: list[int], step: int) -> None:
    items, times_ms, histories = arrays(log)
    covisits = Covisits()
    for start in range(0, len(items), step):
        part = slice(start, start + step)
        covisits.count(items[part], times_ms[part], histories[part])
    now_ms = int(times_ms[-1]) + 120_000
    found = covisits.features(np.array([history]), np.array([now_ms]))
    expected = plainly(log, history, now_ms)
    assert set(found.items.tolist()) == set(expected)
    for item, values in zip(found.items.tolist(), found.values, strict=True):
        assert values == pytest.approx(expected[item], abs=1e-4)


def test_only_wanted_items_are_named_by_their_places() -> None:
    covisits = Covisits()
    covisits.count(np.array([2, 3]), np.array([T0, T0]), np.array([[1] + [0] * (DEPTH - 1)] * 2))
    column_of = np.array([-1, -1, -1, 7])
    found = covisits.features(np.array([[1] + [0] * (DEPTH - 1)]), np.array([T0]), column_of)
    assert found.items.tolist() == [7]
    assert found.values.shape == (1, COVISITS)


def test_the_weakest_successor_makes_room() -> None:
    covisits = Covisits()
    history = np.array([[1] + [0] * (DEPTH - 1)])
    for item in range(2, SUCCESSORS + 2):
        for _ in range(1 if item == 9 else 2):
            covisits.count(np.array([item]), np.array([T0]), history)
    covisits.count(np.array([1000]), np.array([T0]), history)
    found = set(covisits.features(history, np.array([T0])).items.tolist())
    assert found == {*range(2, SUCCESSORS + 2), 1000} - {9}


def test_a_file_restores_and_forgetting_keeps_what_is_active() -> None:
    covisits = Covisits()
    for number in range(1, 400):
        covisits.count(np.array([number + 1]), np.array([T0 + number]), np.array([[number] + [0] * (DEPTH - 1)]))
    history, now = np.array([[398, 397] + [0] * (DEPTH - 2)]), np.array([T0 + 1000])
    restored = Covisits.of(covisits.arrays())
    assert restored.features(history, now).values == pytest.approx(covisits.features(history, now).values)
    active = covisits.active(T0 + 390)
    names = covisits.involved(active)
    assert names.tolist() == list(range(390, 401))
    kept = covisits.renumbered(active, names)
    renamed = np.array([[names.tolist().index(398) + 1, names.tolist().index(397) + 1] + [0] * (DEPTH - 2)])
    assert kept.features(renamed, now).values == pytest.approx(covisits.features(history, now).values)


def test_forgetting_the_larger_half_frees_its_memory_and_changes_no_number() -> None:
    covisits, whole = Covisits(), Covisits()
    for number in range(1, 1000):
        for each in (covisits, whole):
            each.count(np.array([number + 1]), np.array([T0 + number]), np.array([[number] + [0] * (DEPTH - 1)]))
    covisits.forget(T0 + 400)
    assert len(covisits) == 999, "the larger half is active"
    covisits.forget(T0 + 900)
    assert len(covisits) == 100
    assert covisits.counts.nbytes < whole.counts.nbytes / 2
    for each in (covisits, whole):  # the first is known no more, the second is, the third is known again
        each.count(
            np.array([7, 8, 9]), np.array([T0 + 2000] * 3), np.array([[n] + [0] * (DEPTH - 1) for n in (5, 950, 6)])
        )
    history, now = np.array([[950, 999] + [0] * (DEPTH - 2)]), np.array([T0 + 3000])
    for found, expected in zip(covisits.features(history, now), whole.features(history, now), strict=True):
        np.testing.assert_array_equal(found, expected)
    forgotten = covisits.features(np.array([[300] + [0] * (DEPTH - 1)]), now)
    assert not len(forgotten.items)


def engagement(number: int) -> Engagement:
    return Engagement(event_id=f"e{number}", user_id="u", item_id=f"i{number}", occurred_at=T0 + number)


def test_a_succession_names_what_came_just_before() -> None:
    users = Users()
    for number in range(8):
        placed = Placed(engagement(number), (), 0, number)
        told = succession(users, users.fold([placed]), placed)
        assert told.before == tuple(f"i{before}" for before in range(number - 1, max(-1, number - 1 - DEPTH), -1))
    again = Placed(engagement(3), (), 0, 3)
    repeated = succession(users, users.fold([again]), again)
    assert repeated == Succession(3, T0 + 3, "i3", ("i2", "i1", "i0"))


@given(
    st.lists(
        st.tuples(st.integers(0, 2**40), st.text(min_size=1, max_size=9), st.lists(st.text(max_size=9), max_size=5))
    )
)
def test_frames_say_what_they_were_given(entries: list[tuple[int, str, list[str]]]) -> None:
    told = [Succession(number, at_ms, item, tuple(before)) for number, (at_ms, item, before) in enumerate(entries)]
    records = encoded(told, at_most=2)
    assert [each for record in records for each in decode_successions(record)] == told
    assert len(records) == (len(told) + 1) // 2
    for record in records:
        with pytest.raises(ValueError, match="truncated"):
            decode_successions(record[:-1])


def test_more_predecessors_than_count_are_of_another_format() -> None:
    told = Succession(0, T0, "i", tuple(f"i{number}" for number in range(DEPTH + 1)))
    with pytest.raises(ValueError, match="a succession of 11 items"):
        decode_successions(*encoded([told]))


def test_repeated_frames_count_once_and_scores_are_weighted() -> None:
    covisits = ItemCovisits()
    told = [Succession(offset, T0, "b", ("a",)) for offset in range(3)]
    covisits.count(0, told[:2])
    covisits.count(0, told)
    covisits.count(1, told[:1])
    weights = np.zeros((2, COVISITS), dtype=np.float32)
    weights[:, 0] = 2.0
    block = Block(1)
    for item_id in ("c", "b"):
        block.put(item_id, np.zeros(1, dtype=np.float32), T0, ItemActivity())
    added = covisits.scores([["a"], []], weights, T0).within(block)
    assert added.owners.tolist() == [0]
    assert added.rows.tolist() == [block.rows["b"]]
    assert added.scores == pytest.approx([2 * np.log1p(4.0)])
    covisits.count(0, [Succession(10 + number, T0 - 5, "b", (f"old{number}",)) for number in range(4)])
    covisits.forget(T0)
    assert len(covisits) == 1
    assert covisits.scores([["a"]], weights[:1], T0).within(block).scores == pytest.approx(added.scores)
    covisits.forget(T0)
    assert len(covisits) == 1, "nothing to forget"
    covisits.forget(T0 + 1)
    assert len(covisits) == 0
    assert covisits.scores([["a"]], weights[:1], T0).within(block).rows.tolist() == []


@given(st.lists(st.tuples(st.sampled_from(["put", "delete", "engage", "forget"]), st.integers(0, 12)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_scores_find_their_rows_whatever_came_before(operations: list[tuple[str, int]]) -> None:
    block, covisits = Block(1), ItemCovisits()
    for at, (operation, number) in enumerate(operations):
        item_id = f"i{number}"
        if operation == "put":
            block.put(item_id, np.ones(1, dtype=np.float32), T0, ItemActivity())
        elif operation == "delete" and item_id in block:
            block.remove(item_id)
        elif operation == "engage":
            covisits.count(0, [Succession(at, T0 + at, item_id, (f"from {number}",))])
            if item_id in block:
                block.set_activity(item_id, ItemActivity((1.0,) * WINDOWS, T0, 1, 1))
        elif operation == "forget":
            covisits.forget(T0 + at - 10)
        for source in (f"from {number}" for number in range(13)):
            expected = {block.rows[item_id] for item_id in covisits.features([source], T0 + at) if item_id in block}
            scores = covisits.scores([[source]], np.ones((1, COVISITS), dtype=np.float32), T0 + at)
            sparse = scores.within(block)
            assert set(sparse.rows.tolist()) == expected
            dense = np.zeros((1, len(block)), dtype=np.float32)
            dense[0, sparse.rows] = sparse.scores
            for placed in (item_covisits.MAX_NUMBERED, 0):
                added = np.zeros_like(dense)
                with pytest.MonkeyPatch.context() as patched:
                    patched.setattr(item_covisits, "MAX_NUMBERED", placed)
                    scores.add_to(added, block)
                assert added == pytest.approx(dense)

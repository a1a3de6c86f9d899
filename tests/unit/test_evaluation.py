"""Evaluation's own arithmetic: coarse topics, comparisons, gate."""

import numpy as np

from headwater.datafiles import EngagementTable
from headwater.events import Item
from training.batches import LearningSettings
from training.corpus import Corpus
from training.evaluation.coarse import grouped
from training.evaluation.comparison import compared
from training.evaluation.prequential import Schedule, evaluate_prequential
from training.evaluation.ranking import Ranking, rank_of
from training.evaluation.table import Row
from training.gate import CANDIDATE, LIVE, MIN_QUERIES, decide

T0 = 1_700_000_000_000


def test_topics_with_the_same_readers_share_a_group() -> None:
    blocks = np.kron(np.eye(3), np.ones((4, 4))) * 0.9 + 0.1 * np.eye(12)
    group = grouped(blocks, 3, np.random.default_rng(0))
    assert len(set(group.tolist())) == 3
    assert all(len(set(group[start : start + 4].tolist())) == 1 for start in (0, 4, 8))
    assert len(grouped(np.eye(2), 15, np.random.default_rng(0))) == 2


def test_a_comparison_says_gain_and_interval() -> None:
    random = np.random.default_rng(0)
    theirs = random.integers(1, 20, 2000).astype(float)
    ours = np.maximum(1.0, theirs - 1)
    gains = {
        each.figure: each
        for each in compared(Row("a", ours.tolist()), Row("b", theirs.tolist()), np.arange(2000) // 50, 0)
    }
    mrr = gains["mrr"]
    assert mrr.gain == np.mean(1 / ours) / np.mean(1 / theirs) - 1
    assert 0 < mrr.low < mrr.gain < mrr.high
    same = compared(Row("a", theirs.tolist()), Row("b", theirs.tolist()), np.arange(2000) // 50, 0)
    assert {(each.gain, each.low, each.high) for each in same} == {(0.0, 0.0, 0.0)}
    assert compared(Row("a"), Row("b"), np.empty(0, dtype=np.int64), 0) == []


def ranked(candidate: list[float], live: list[float] | None, match: float = 1.0) -> Ranking:
    ranking = Ranking(Corpus(), None)
    for name, ranks in ((CANDIDATE, candidate), (LIVE, live)):
        for rank in ranks or ():
            ranking.row(name).add(rank, match)
    return ranking


def test_what_nothing_tells_apart_shares_the_middle_rank() -> None:
    scores = np.array([3.0, 1.0, 1.0, 1.0, 0.0], dtype=np.float32)
    assert [rank_of(scores, place) for place in range(5)] == [1.0, 3.0, 3.0, 3.0, 5.0]
    assert rank_of(scores, 1, np.array([False, True, True, False, True])) == 1.5


def test_what_is_no_number_is_last() -> None:
    scores = np.array([3.0, np.nan, np.nan], dtype=np.float32)
    assert [rank_of(scores, place) for place in range(3)] == [1.0, 3.0, 3.0]


def test_an_engagement_that_makes_its_item_known_is_no_query() -> None:
    items = [Item(item_id=name, topics=("t",), published_at=T0 + at_ms) for name, at_ms in (("a", -1), ("b", 1000))]
    users, ids = (np.array(list(names), dtype=object) for names in ("uvwx", "abba"))
    table = EngagementTable(users, ids, T0 + np.array([0, 1000, 2000, 3000]), list("1234"), ["click"] * 4)
    schedule = Schedule(T0 - 1, T0 + 10_000, None, 100, methods=["conditional"])
    fine = evaluate_prequential(table, items, schedule, LearningSettings(live_for_ms=None), lambda *told: None)["fine"]
    assert [fine.corpus.items[number - 1].item_id for number in fine.items] == ["a", "b", "a"]
    assert fine.asked_ms == [T0, T0 + 2000, T0 + 3000]


def test_the_gate_refuses_what_is_worse_beyond_chance() -> None:
    random = np.random.default_rng(0)
    live = random.integers(1, 4, 1000).astype(float).tolist()
    assert decide(ranked(live, live)).promote
    assert not decide(ranked([rank + 1 for rank in live], live)).promote
    few = live[:60]
    slightly = [rank + (place == 0) for place, rank in enumerate(few)]
    assert decide(ranked(slightly, few)).promote
    assert not decide(ranked(live, None, match=0.5)).promote
    assert decide(ranked(live[: MIN_QUERIES - 1], None, match=0.5)).promote, "too few queries to refuse"


def test_the_gate_names_the_signatures_of_failure() -> None:
    ranking = ranked([4.0] * 100, None)
    for _ in range(100):
        ranking.row(f"{CANDIDATE}+filter").add(2.0)
        ranking.row("popularity-1h").add(1.0)
    decision = decide(ranking)
    assert decision.promote
    assert any("too weakly" in reason for reason in decision.reasons)
    assert any("no gain over popularity" in reason for reason in decision.reasons)

"""Evaluation's own arithmetic: coarse topics, comparisons, gate."""

import numpy as np

from training.corpus import Corpus
from training.evaluation.coarse import grouped
from training.evaluation.comparison import compared
from training.evaluation.ranking import Ranking
from training.evaluation.table import Row
from training.gate import CANDIDATE, LIVE, decide


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


def test_the_gate_refuses_what_is_worse_beyond_chance() -> None:
    random = np.random.default_rng(0)
    live = random.integers(1, 4, 1000).astype(float).tolist()
    assert decide(ranked(live, live)).promote
    assert not decide(ranked([rank + 1 for rank in live], live)).promote
    few = live[:60]
    slightly = [rank + (place == 0) for place, rank in enumerate(few)]
    assert decide(ranked(slightly, few)).promote
    assert not decide(ranked(live, None, match=0.5)).promote
    assert decide(ranked(live[:10], None, match=0.5)).promote, "too few queries to refuse"


def test_the_gate_names_the_signatures_of_failure() -> None:
    ranking = ranked([4.0] * 100, None)
    for _ in range(100):
        ranking.row(f"{CANDIDATE}+filter").add(2.0)
        ranking.row("popularity-1h").add(1.0)
    decision = decide(ranking)
    assert decision.promote
    assert any("too weakly" in reason for reason in decision.reasons)
    assert any("no gain over popularity" in reason for reason in decision.reasons)

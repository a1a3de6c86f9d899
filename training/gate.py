"""The promotion gate: a new bundle must not be worse than the live one on the newest slice, beyond chance."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.corpus import Corpus
from training.evaluation.point_in_time import PointInTime
from training.evaluation.popularity import WINDOWS_MS, SlidingCounts
from training.evaluation.ranking import Ranking
from training.evaluation.scorers import Scorer
from training.examples import Examples
from training.recent import Recent
from training.sampling import sample_conditions

MAX_MRR_LOSS = 0.02
DEVIATIONS = 2.0
MIN_TOPIC_MATCH = 0.8
MAX_FILTER_GAIN = 0.1
MIN_QUERIES = 10
"""Queries below which chance alone could refuse a bundle."""
MAX_RANKED = 500
MAX_CANDIDATES = 20_000
"""Items that are ranked: those published or engaged with last, and the newest examples' own."""
CANDIDATE = "candidate"
LIVE = "live"


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why."""

    promote: bool
    reasons: list[str]


def rank_newest(
    scorers: Mapping[str, Scorer],
    corpus: Corpus,
    newest: Examples,
    recent: Recent,
    live_for_ms: int | None,
    seed: int,
) -> Ranking:
    """Return the ranking of some of the newest examples, each asked for with a topic of its item.

    Args:
        scorers: By row name.
        corpus: Its activity does not contain the examples yet, and is the same afterwards.
        newest: In order of time.
        recent: Ends with them.
        live_for_ms: See `Ranking`.
        seed: Of what is drawn.
    """
    rows = np.flatnonzero(~newest.repeats & (corpus.item_topics[newest.items, 0] > 0))
    random = np.random.default_rng(seed)
    if len(rows) > MAX_RANKED:
        rows = np.sort(random.choice(rows, MAX_RANKED, replace=False))
    asked = newest[rows]
    _, conditions = sample_conditions(corpus, asked.items, random)
    ranking = Ranking(corpus, live_for_ms, np.union1d(corpus.most_recent(MAX_CANDIDATES), newest.items))
    counts = SlidingCounts(recent.items, recent.times_ms, len(corpus) + 1, before=len(recent) - len(newest))
    activity = corpus.activity()
    ranking.rank(scorers, asked, conditions, asked.histories, PointInTime(corpus, newest, counts, rows, 0))
    corpus.restore(activity)
    return ranking


def decide(ranking: Ranking) -> Decision:
    """Return the decision over a ranking with rows `candidate` and, where a bundle is live, `live`.

    The reasons name the failures of conditional retrieval by their symptoms (arXiv 2508.16793): low topic match, a filter
    that still gains much, no gain over popularity.
    """
    candidate = ranking.row(CANDIDATE).figures()
    if candidate["queries"] < MIN_QUERIES:
        return Decision(True, [f"only {candidate['queries']} queries on the newest slice, too few to refuse"])
    reasons, refused = [], False
    match = candidate["topic_match@50"]
    if match < MIN_TOPIC_MATCH:
        refused = True
        reasons.append(
            f"topic match@50 without a filter is {match:.3f}, needs {MIN_TOPIC_MATCH}: the conditions sampled in training "
            "and those of the queries differ, or the condition is mixed in too weakly"
        )
    filtered = ranking.row(f"{CANDIDATE}+filter").figures()["mrr"]
    if filtered > (1.0 + MAX_FILTER_GAIN) * candidate["mrr"]:
        reasons.append(
            f"note: a filter raises MRR from {candidate['mrr']:.4f} to {filtered:.4f}: the condition is mixed in too weakly"
        )
    popular = max((row.figures()["mrr"] for name, row in ranking.rows.items() if name in WINDOWS_MS), default=0.0)
    if candidate["mrr"] <= popular:
        reasons.append(f"note: MRR {candidate['mrr']:.4f} is no gain over popularity in the topic, {popular:.4f}")
    if LIVE in ranking.rows:
        live = 1.0 / np.array(ranking.row(LIVE).ranks)
        loss = live - 1.0 / np.array(ranking.row(CANDIDATE).ranks)  # the same queries
        error = DEVIATIONS * float(loss.std()) / len(loss) ** 0.5
        worse = float(loss.mean()) - error > MAX_MRR_LOSS * float(live.mean())
        refused = refused or worse
        reasons.append(
            f"MRR {candidate['mrr']:.4f} is {'worse' if worse else 'no worse'} than the live bundle's {live.mean():.4f} "
            f"(allowed: {MAX_MRR_LOSS:.0%} lower, plus {error:.4f} for sampling noise)"
        )
    return Decision(not refused, reasons)

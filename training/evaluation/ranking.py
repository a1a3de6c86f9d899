"""Ranks each query's engaged item among all live ones, by every method at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headwater.covisit_features import COVISITS, NEAR_LOG, CovisitFeatures
from headwater.features import STREAMING, Features
from training.corpus import Corpus
from training.evaluation.baselines import Baseline
from training.evaluation.point_in_time import PointInTime
from training.evaluation.popularity import WINDOWS_MS, SlidingCounts
from training.evaluation.scorers import Floats, Scorer, SecondStage
from training.evaluation.table import Row
from training.examples import Examples
from training.ranker import RANKED

Ints = npt.NDArray[np.int64]
MATCH_AT = 50
OVERFETCH = 200


@dataclass
class Ranking:
    """Collects rows over many stretches of queries.

    Beside each scorer's own row there is one inside an exact filter, `+filter`, and where the condition steers one of such
    lists of all topics merged by score, `+merged`.

    Attributes:
        overfetch: Names of scorers that also get a row `+overfetch200`.
        baselines: More rows, by name.
        live_for_ms: Items neither published nor engaged with for this long are no candidates; None keeps all.
        among: Ascending numbers of the items that can be candidates; None for all.
        skipped: Queries whose engaged item was no candidate.
        asked_ms, items, conditions: Time, engaged item and topic of each query that was ranked.
    """

    corpus: Corpus
    live_for_ms: int | None
    among: Ints | None = None
    overfetch: Sequence[str] = ()
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    skipped: int = 0
    asked_ms: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    conditions: list[int] = field(default_factory=list)

    def row(self, name: str) -> Row:
        """Return the row of that name."""
        return self.rows.setdefault(name, Row(name))

    def rank(
        self,
        scorers: Mapping[str, Scorer],
        examples: Examples,
        conditions: Ints,
        seen: Sequence[npt.ArrayLike] | Ints,
        before: PointInTime,
    ) -> None:
        """Rank queries in order of time.

        Args:
            scorers: By row name.
            examples: Q queries: the user just before, the engaged item, the time.
            conditions: (Q,) topics asked for.
            seen: Per query the numbers of items the user must not be shown again.
            before: Brings activity and counts to the state just before a query.
        """
        if not len(examples):
            return
        among = np.arange(len(self.corpus) + 1) if self.among is None else self.among
        embedded = {name: _Embedded(scorer, examples, conditions, among) for name, scorer in scorers.items()}
        carriers = {topic: self.corpus.has_topic(among, topic) for topic in np.unique(conditions).tolist()}
        for number in range(len(examples)):
            now_ms, item, condition = (
                int(examples.times_ms[number]),
                int(examples.items[number]),
                int(conditions[number]),
            )
            counts = before(number)
            rows = self._eligible(among, now_ms, seen[number])
            live = among[rows]
            position = int(np.searchsorted(live, item))
            if position == len(live) or live[position] != item:
                self.skipped += 1
                continue
            self.asked_ms.append(now_ms)
            self.items.append(item)
            self.conditions.append(condition)
            on_topic = carriers[condition][rows]
            query = self._query(examples[number : number + 1], number, rows, live, position, on_topic)
            self._rank_baselines(query, counts, np.asarray(seen[number]))
            for name in scorers:
                self._rank_scorer(name, query, embedded[name])

    def _eligible(self, among: Ints, now_ms: int, seen: npt.ArrayLike) -> Ints:
        """Return which of some items are live and may be shown to the user: ascending positions in `among`."""
        eligible = self.corpus.are_live(among, now_ms, self.live_for_ms)
        numbers = np.asarray(seen, dtype=np.int64)
        places = np.minimum(np.searchsorted(among, numbers), len(among) - 1)
        eligible[places[among[places] == numbers]] = False
        return np.flatnonzero(eligible)

    def _query(
        self, example: Examples, number: int, rows: Ints, live: Ints, position: int, on_topic: npt.NDArray[np.bool_]
    ) -> "_Query":
        streaming = self.corpus.streaming(live, int(example.times_ms[0]))
        covisits = self.corpus.covisits.features(example.histories, example.times_ms, self.corpus.positions(live))
        return _Query(number, example.features, rows, live, position, on_topic, streaming, covisits)

    def _rank_baselines(self, query: "_Query", counts: SlidingCounts, seen: Ints) -> None:
        """Rank by popularity windows, fitted baselines and co-visitation alone."""
        members, position = query.live[query.on_topic], int(query.on_topic[: query.position].sum())
        for window, name in enumerate(WINDOWS_MS):
            self.row(name).add(counts.rank(window, members, position, self.corpus.published_ms))
        for name, baseline in self.baselines.items():
            scores = baseline.scores(seen, query.live)
            self._rank_scores(name, query, scores, scores)
        nearest = 1e-6 * counts.counts[0, query.live]  # ties go to the more popular one
        nearest[query.covisits.items] += query.covisits.values[:, NEAR_LOG]
        self._rank_scores("co-visitation", query, nearest, nearest)

    def _rank_scorer(self, name: str, query: "_Query", embedded: "_Embedded") -> None:
        """Rank by a scorer: without a filter, inside an exact filter, and lists of all topics merged by score."""
        scorer, user, own = embedded.scorer, embedded.users[query.number], embedded.unconditioned[query.number]
        items = embedded.items(query.rows)
        weights = user[items.shape[1] :]
        scores = scorer.static_scores(user, items)[query.rows] + query.streaming @ weights[:STREAMING]
        scores[query.covisits.items] += query.covisits.values @ weights[STREAMING : STREAMING + COVISITS]
        instead = (own - user)[: scorer.steered]
        filtered = scores + (items[:, : scorer.steered] @ instead)[query.rows]
        if scorer.second_stage:
            _rank_again(scorer.second_stage, query, own, items, filtered)
        self._rank_scores(name, query, scores, filtered)
        if scorer.steered and not scorer.second_stage:  # the second stage lifts the condition's topic above all others
            self.row(f"{name}+merged").add(rank_of(filtered, query.position), _match(filtered, query.on_topic))

    def _rank_scores(self, name: str, query: "_Query", scores: Floats, filtered: Floats) -> None:
        """Add to the rows of a method: by `scores` (N,) alone, and by `filtered` (N,) inside an exact filter."""
        position, on_topic = query.position, query.on_topic
        rank = rank_of(scores, position)
        self.row(name).add(rank, _match(scores, on_topic))
        if name in self.overfetch:
            within = rank_of(scores, position, on_topic) if rank <= OVERFETCH else float("inf")
            self.row(f"{name}+overfetch{OVERFETCH}").add(within, _match(scores, on_topic, OVERFETCH))
        self.row(f"{name}+filter").add(rank_of(filtered, position, on_topic))


@dataclass(frozen=True)
class _Query:
    """One query, and what all methods rank.

    Attributes:
        number: Which of the Q queries it is.
        features: The user tower's inputs, (1, ...).
        rows: (N,) positions of the candidates among the items that can be.
        live: (N,) their numbers, ascending.
        position: Of the engaged item in `live`.
        on_topic: (N,) which of them carry the topic.
        streaming: (N, STREAMING) their streaming features.
        covisits: Their co-visitation features; items are positions in `live`.
    """

    number: int
    features: Features
    rows: Ints
    live: Ints
    position: int
    on_topic: npt.NDArray[np.bool_]
    streaming: Floats
    covisits: CovisitFeatures


def _rank_again(stage: SecondStage, query: _Query, user: Floats, items: Floats, filtered: Floats) -> None:
    """Replace the scores (N,) of the topic's best items, in place, by those of the second stage, above all others."""
    best = _best(filtered, query.on_topic)
    covisits = np.zeros((len(query.live), COVISITS), dtype=np.float32)
    covisits[query.covisits.items] = query.covisits.values
    parts = [each[best] for each in (query.streaming, covisits, filtered)]
    again = stage(query.features, user, items[query.rows[best]], *parts)
    filtered[best] = again - again.min() + filtered[best].max()


def rank_of(scores: Floats, position: int, among: npt.NDArray[np.bool_] | bool = True) -> float:
    """Return the rank of `scores[position]` from 1; ties get their mean rank, NaN ranks last."""
    if np.isnan(scores[position]):
        return float(len(scores))
    better, equal = (scores > scores[position]) & among, (scores == scores[position]) & among
    return 1 + int(better.sum()) + (int(equal.sum()) - 1) / 2


def _match(scores: Floats, on_topic: npt.NDArray[np.bool_], fetched: int = MATCH_AT) -> float:
    """Return how many of the best `fetched` items are on topic, as a share of what an answer of 50 could hold."""
    possible = min(MATCH_AT, int(on_topic.sum()))
    best = np.argpartition(-scores, fetched - 1)[:fetched] if len(scores) > fetched else np.arange(len(scores))
    return min(possible, int(on_topic[best].sum())) / possible


def _best(scores: Floats, on_topic: npt.NDArray[np.bool_]) -> Ints:
    """Return the positions of the topic's best items, for the second stage."""
    members = np.flatnonzero(on_topic)
    if len(members) <= RANKED:
        return members
    return members[np.argpartition(-scores[members], RANKED - 1)[:RANKED]]


class _Embedded:
    """A scorer's embeddings of the users of Q queries, and of items, computed when first asked for.

    Attributes:
        scorer: Of the embeddings.
        users: (Q, ...) user embeddings with the condition.
        unconditioned: Those used inside an exact filter: without the condition where it steers, which the filter enforces.
    """

    def __init__(self, scorer: Scorer, examples: Examples, conditions: Ints, among: Ints) -> None:
        self.scorer = scorer
        self.users = scorer.embed_users(examples, conditions)
        self.unconditioned = scorer.embed_users(examples, np.zeros_like(conditions)) if scorer.steered else self.users
        self._among = among
        self._known = np.zeros(len(among), dtype=np.bool_)
        self._matrix: Floats | None = None

    def items(self, rows: Ints) -> Floats:
        """Return the embeddings (A, D) of the A items that can be candidates; those of rows never asked for are zeros."""
        fresh = rows[~self._known[rows]]
        if self._matrix is None or len(fresh):
            embeddings = self.scorer.embed_items(self._among[fresh])
            if self._matrix is None:
                self._matrix = np.zeros((len(self._known), embeddings.shape[1]), dtype=np.float32)
            self._matrix[fresh] = embeddings
            self._known[fresh] = True
        return self._matrix

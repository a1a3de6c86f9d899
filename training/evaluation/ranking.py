"""Ranks each query's engaged item among all live ones, for every method at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headwater.covisit_features import COVISITS, NEAR_LOG
from headwater.features import STREAMING
from training.corpus import Corpus
from training.evaluation.baselines import Baseline
from training.evaluation.popularity import WINDOWS_MS, SlidingCounts
from training.evaluation.scorers import Floats, Scorer
from training.evaluation.table import Row
from training.examples import Examples
from training.ranker import RANKED

Ints = npt.NDArray[np.int64]
MATCH_AT = 50
OVERFETCH = 200


@dataclass
class Ranking:
    """Collects rows over many stretches of queries.

    Beside each scorer's own row there is one of the best inside an exact filter, `+filter`, and where the condition steers
    one of such lists of all topics merged by score, `+merged`.

    Attributes:
        overfetch: Names of scorers that also get a row `+overfetch200`.
        baselines: More rows, by name.
        live_for_ms: Items neither published nor engaged with for this long are no candidates; None keeps all.
        skipped: Queries whose engaged item was no candidate.
        asked_ms, items, conditions: Time, engaged item and topic of each query that was ranked.
    """

    corpus: Corpus
    live_for_ms: int | None
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
        before: "Counting",
    ) -> None:
        """Rank queries in order of time.

        Args:
            scorers: Row name to what scores.
            examples: Q queries: the user just before, the engaged item, the time.
            conditions: (Q,) topics asked for.
            seen: For each query the numbers of items the user must not be shown again.
            before: Brings activity and counts to the state just before a query.
        """
        if not len(examples):
            return
        items = {name: _Embedded(scorer, len(self.corpus) + 1) for name, scorer in scorers.items()}
        users = {name: scorer.embed_users(examples, conditions) for name, scorer in scorers.items()}
        # Inside an exact filter a condition that steers has nothing left to say.
        within = {
            name: scorer.embed_users(examples, np.zeros_like(conditions)) if scorer.steered else users[name]
            for name, scorer in scorers.items()
        }
        everything = np.arange(len(self.corpus) + 1)
        carriers = {topic: self.corpus.has_topic(everything, topic) for topic in np.unique(conditions).tolist()}
        for query in range(len(examples)):
            now_ms = int(examples.times_ms[query])
            counts = before(query)
            live = self.corpus.live(now_ms, self.live_for_ms)
            unseen = np.ones(len(self.corpus) + 1, dtype=np.bool_)
            unseen[np.asarray(seen[query], dtype=np.int64)] = False
            live = live[unseen[live]]
            place = int(np.searchsorted(live, examples.items[query]))
            if place == len(live) or live[place] != examples.items[query]:
                self.skipped += 1
                continue
            self.asked_ms.append(now_ms)
            self.items.append(int(examples.items[query]))
            self.conditions.append(int(conditions[query]))
            on_topic = carriers[int(conditions[query])][live]
            self._rank_popularity(counts, live[on_topic], int(on_topic[:place].sum()))
            for name, baseline in self.baselines.items():
                scores = baseline.scores(np.asarray(seen[query]), live)
                self._rank_scores(name, scores, place, on_topic, scores)
            streaming = self.corpus.streaming(live, now_ms)
            history = examples.histories[query : query + 1]
            covisits = self.corpus.covisits.features(
                history, examples.times_ms[query : query + 1], self.corpus.positions(live)
            )
            nearest = 1e-6 * counts.counts[0, live]  # ties go to the more popular one
            nearest[covisits.items] += covisits.values[:, NEAR_LOG]
            self._rank_scores("co-visitation", nearest, place, on_topic, nearest)
            for name, scorer in scorers.items():
                user, embedded = users[name][query], items[name].with_those_of(live)
                weights = user[embedded.shape[1] :]
                scores = scorer.static_scores(user, embedded)[live] + streaming @ weights[:STREAMING]
                scores[covisits.items] += covisits.values @ weights[STREAMING : STREAMING + COVISITS]
                own = within[name][query]
                instead = (own - user)[: scorer.steered]
                filtered = scores + (embedded[:, : scorer.steered] @ instead)[live]
                if scorer.second_stage:
                    best = _best(filtered, on_topic)
                    pairs = np.zeros((len(live), COVISITS), dtype=np.float32)
                    pairs[covisits.items] = covisits.values
                    parts = [each[best] for each in (streaming, pairs, filtered)]
                    asked = examples[query : query + 1].features
                    again = scorer.second_stage(asked, own, embedded[live[best]], *parts)
                    filtered[best] = again - again.min() + filtered[best].max()
                self._rank_scores(name, scores, place, on_topic, filtered)
                if scorer.steered and not scorer.second_stage:  # that one lifts the topic asked for above all others
                    self.row(f"{name}+merged").add(rank_of(filtered, place), _match(filtered, on_topic))

    def _rank_popularity(self, counts: SlidingCounts, members: Ints, place: int) -> None:
        for window, name in enumerate(WINDOWS_MS):
            self.row(name).add(counts.rank(window, members, place, self.corpus.published_ms))

    def _rank_scores(
        self, name: str, scores: Floats, place: int, on_topic: npt.NDArray[np.bool_], filtered: Floats
    ) -> None:
        """Add to the rows of a method: by `scores` (N,) alone, and by `filtered` (N,) inside an exact filter."""
        rank = rank_of(scores, place)
        self.row(name).add(rank, _match(scores, on_topic))
        if name in self.overfetch:
            within = rank_of(scores, place, on_topic) if rank <= OVERFETCH else float("inf")
            self.row(f"{name}+overfetch{OVERFETCH}").add(within, _match(scores, on_topic, OVERFETCH))
        self.row(f"{name}+filter").add(rank_of(filtered, place, on_topic))


def rank_of(scores: Floats, place: int, among: npt.NDArray[np.bool_] | bool = True) -> float:
    """Return the rank of `scores[place]` from 1, of equal scores the middle one; what is no number is last."""
    if np.isnan(scores[place]):
        return float(len(scores))
    better, equal = (scores > scores[place]) & among, (scores == scores[place]) & among
    return 1 + int(better.sum()) + (int(equal.sum()) - 1) / 2


def _match(scores: Floats, on_topic: npt.NDArray[np.bool_], fetched: int = MATCH_AT) -> float:
    """Return how many of the best `fetched` items are on topic, as a share of what an answer of 50 could hold."""
    possible = min(MATCH_AT, int(on_topic.sum()))
    best = np.argpartition(-scores, fetched - 1)[:fetched] if len(scores) > fetched else np.arange(len(scores))
    return min(possible, int(on_topic[best].sum())) / possible


def _best(scores: Floats, on_topic: npt.NDArray[np.bool_]) -> Ints:
    """Return the places of the topic's best items, for the second stage."""
    members = np.flatnonzero(on_topic)
    if len(members) <= RANKED:
        return members
    return members[np.argpartition(-scores[members], RANKED - 1)[:RANKED]]


class Counting:
    """Brings a corpus' activity and the sliding counts to the state just before each query.

    Args:
        corpus: Its activity is advanced; restore it afterwards.
        log: All examples, in order of time.
        counts: Advanced likewise.
        rows: Row of each query in `log`.
        begin: First row not counted yet in the corpus.
        behind_ms: How far all of it lags behind the query.
    """

    def __init__(
        self, corpus: Corpus, log: Examples, counts: SlidingCounts, rows: Ints, begin: int, behind_ms: int = 0
    ) -> None:
        self._corpus, self._log, self._counts, self._rows, self._done = corpus, log, counts, rows, begin
        self._behind_ms = behind_ms

    def __call__(self, query: int) -> SlidingCounts:
        row = int(self._rows[query])
        as_of_ms = int(self._log.times_ms[row]) - self._behind_ms
        if self._behind_ms:
            row = int(np.searchsorted(self._log.times_ms, as_of_ms))
        if row > self._done:
            passed = slice(self._done, row)
            self._corpus.count(self._log.items[passed], self._log.times_ms[passed], self._log.predecessors[passed])
            self._done = row
        self._counts.advance(row, as_of_ms)
        return self._counts


class _Embedded:
    """Item embeddings, computed when first asked for."""

    def __init__(self, scorer: Scorer, size: int) -> None:
        self._scorer = scorer
        self._known = np.zeros(size, dtype=np.bool_)
        self._matrix: Floats | None = None

    def with_those_of(self, items: Ints) -> Floats:
        """Return the embeddings (I, D) by item number, zeros where they were never asked for: a copy of some costs more."""
        fresh = items[~self._known[items]]
        if self._matrix is None or len(fresh):
            embeddings = self._scorer.embed_items(fresh)
            if self._matrix is None:
                self._matrix = np.zeros((len(self._known), embeddings.shape[1]), dtype=np.float32)
            self._matrix[fresh] = embeddings
            self._known[fresh] = True
        return self._matrix

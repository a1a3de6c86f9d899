"""Point-in-time counts: what was known just before each query."""

import numpy as np
import numpy.typing as npt

from training.corpus import Corpus
from training.evaluation.popularity import SlidingCounts
from training.examples import Examples

Ints = npt.NDArray[np.int64]


class PointInTime:
    """Advances a corpus' activity and the sliding counts to the state just before each query.

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

"""Co-visitation: which items are engaged with after which, the streaming features of a user and an item together.

For each item the strongest successors are kept with decayed counts. The features of one user are a sparse matrix: a row
for each item that succeeds one of the user's newest engagements, zeros for all others. Weighted by the user tower they
are more dimensions of the same inner product.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headwater import covisit_kernels
from headwater.covisit_features import COUNTS, COVISITS, DEPTH, SUCCESSORS, CovisitFeatures
from headwater.covisit_kernels import MAX_ENTRIES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

FIRST_CAPACITY = 256
_ARRAYS = ("successors", "counts", "as_of_ms")
_NO_COLUMNS = np.empty(0, dtype=np.int64)


class Covisits:
    """Decayed counts of successions between items, which are given as numbers from 1.

    Attributes:
        successors: (capacity, SUCCESSORS) item numbers, 0 where empty.
        counts: (capacity, COUNTS, SUCCESSORS), as of `as_of_ms` (capacity,), the newest succession.
    """

    def __init__(self) -> None:
        self._row = np.full(FIRST_CAPACITY, -1, dtype=np.int64)
        self._used = 0
        self.successors = np.zeros((FIRST_CAPACITY, SUCCESSORS), dtype=np.int32)
        self.counts = np.zeros((FIRST_CAPACITY, COUNTS, SUCCESSORS), dtype=np.float32)
        self.as_of_ms = np.zeros(FIRST_CAPACITY, dtype=np.int64)

    def __len__(self) -> int:
        return self._used

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return everything as arrays, for a file."""
        return {"row": self._row, **{name: getattr(self, name)[: self._used] for name in _ARRAYS}}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Covisits":
        """Return what `arrays` returned.

        Raises:
            KeyError, ValueError: they are others.
        """
        covisits = cls()
        covisits._row, covisits._used = arrays["row"], len(arrays["successors"])
        for name in _ARRAYS:
            setattr(covisits, name, np.concatenate((arrays[name], getattr(covisits, name))))
        return covisits

    def active(self, since_ms: int) -> Ints:
        """Return the items that another one succeeded since a time."""
        sources = np.flatnonzero(self._row >= 0)
        found: Ints = sources[self.as_of_ms[self._row[sources]] >= since_ms]
        return found

    def forget(self, before_ms: int) -> None:
        """Drop items that nothing succeeded since a time, once they are the larger half; numbers stay."""
        sources = self.active(before_ms)
        if 2 * len(sources) > len(self):
            return
        rows = self._row[sources]
        for name in _ARRAYS:
            kept: npt.NDArray[Any] = getattr(self, name)[rows]
            setattr(self, name, np.concatenate((kept, np.zeros((FIRST_CAPACITY, *kept.shape[1:]), kept.dtype))))
        self._row.fill(-1)
        self._row[sources], self._used = np.arange(len(sources)), len(sources)

    def involved(self, sources: Ints) -> Ints:
        """Return these items and their successors, ascending."""
        numbers = np.unique(np.concatenate((sources, self.successors[self._row[sources]].ravel())))
        involved: Ints = numbers[numbers > 0]
        return involved

    def renumbered(self, sources: Ints, numbers: Ints) -> "Covisits":
        """Return the counts of these items alone; `numbers` (N,), all `involved` among them, become 1 to N."""
        rows = self._row[sources]
        names = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.int64)
        names[numbers] = np.arange(1, len(numbers) + 1)
        fresh = Covisits()
        if len(sources):
            fresh._give_rows(names[sources])
            into = fresh._row[names[sources]]
            fresh.successors[into] = names[self.successors[rows]]
            fresh.counts[into], fresh.as_of_ms[into] = self.counts[rows], self.as_of_ms[rows]
        return fresh

    def count(self, items: Ints, times_ms: Ints, histories: Ints) -> None:
        """Count engagements, one after the other.

        Args:
            items: (N,) engaged items.
            times_ms: (N,) epoch ms.
            histories: (N, DEPTH or more) the user's engagements before, newest first, 0 where there are none.
        """
        self._give_rows(histories[:, :DEPTH])
        items, times_ms, histories = map(np.ascontiguousarray, (items, times_ms, histories))
        covisit_kernels.count_successions(
            items, times_ms, histories, self._row, self.successors, self.counts, self.as_of_ms
        )

    def _give_rows(self, sources: Ints) -> None:
        highest = int(sources.max(initial=0))
        if highest >= len(self._row):
            rows = np.full(max(2 * len(self._row), highest + 1), -1, dtype=np.int64)
            rows[: len(self._row)] = self._row
            self._row = rows
        fresh = sources[(self._row[sources] < 0) & (sources > 0)]
        if not len(fresh):
            return
        fresh = np.unique(fresh)
        end = self._used + len(fresh)
        if end > len(self.successors):
            for name in _ARRAYS:
                old = getattr(self, name)
                grown = np.zeros((max(2 * len(old), end), *old.shape[1:]), dtype=old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
        self._row[fresh] = np.arange(self._used, end)
        self._used = end

    def features(self, histories: Ints, now_ms: Ints, column_of: Ints = _NO_COLUMNS) -> CovisitFeatures:
        """Return the features of users.

        Args:
            histories: (B, DEPTH or more) engagements, newest first, 0 where there are none.
            now_ms: (B,) epoch ms.
            column_of: Column of each item number in the score matrix, -1 where unwanted; entries then hold columns for
                items. Empty for all items.
        """
        most = len(histories) * MAX_ENTRIES
        owners, items = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
        values = np.empty((most, COVISITS), dtype=np.float32)
        kept = self.successors, self.counts, self.as_of_ms
        histories, now_ms = np.ascontiguousarray(histories), np.ascontiguousarray(now_ms)
        count = covisit_kernels.fill_features(histories, now_ms, column_of, self._row, *kept, owners, items, values)
        logs = values[:count]
        return CovisitFeatures(owners[:count], items[:count], np.log(np.add(logs, 1.0, out=logs), out=logs))

    def add_scores(
        self, histories: Ints, now_ms: int, weights: Floats, numbers: Ints, column_of: Ints, scores: Floats
    ) -> None:
        """Add to scores, in place, the features of users times their weights.

        Args:
            histories: (B, DEPTH or more) engagements, newest first, 0 where there are none.
            now_ms: Epoch ms.
            weights: (B, COVISITS) float32.
            numbers: (N,) the items that are scored, 0 for those without a number.
            column_of: Scratch: -1 for each item number; restored before returning.
            scores: (B, N) float32.
        """
        kept = self.successors, self.counts, self.as_of_ms
        histories = np.ascontiguousarray(histories)
        covisit_kernels.add_scores(histories, now_ms, weights, numbers, column_of, self._row, *kept, scores)

"""Co-visitation: which items are engaged with after which, the streaming features of a user and an item together.

For each item the strongest successors are kept with decayed counts. The features of one user are a sparse matrix: a row
for each item that succeeds one of the user's newest engagements, zeros for all others. Weighted by the user tower they
are more dimensions of the same inner product.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

DEPTH = 5
"""Newest engagements whose successors count."""
SUCCESSORS = 32
"""Successors kept of an item."""
HALF_LIVES_MS = (3_600_000, 86_400_000, 86_400_000)
"""Of the counts: directly after, in the short and in the long run; among the next `DEPTH`."""
COUNTS = len(HALF_LIVES_MS)
NEAR = 2
COVISITS = 8
MIN_COUNT = 0.01
SPREAD = 10.0
FIRST_CAPACITY = 256
_ARRAYS = ("successors", "counts", "as_of_ms")
_RATES = -1.0 / np.asarray(HALF_LIVES_MS, dtype=np.float32)


class CovisitFeatures(NamedTuple):
    """Sparse features (B, N, COVISITS): entry e belongs to user `owners[e]` and item `items[e]`, each pair once."""

    owners: Ints
    items: Ints
    values: Floats


class Covisits:
    """Decayed counts of successions between items, which are given as numbers from 1.

    Attributes:
        successors: (capacity, SUCCESSORS) item numbers, 0 where empty.
        counts: (capacity, SUCCESSORS, COUNTS), as of `as_of_ms`.
    """

    def __init__(self) -> None:
        self._row = np.full(FIRST_CAPACITY, -1, dtype=np.int64)
        self._used = 0
        self.successors = np.zeros((FIRST_CAPACITY, SUCCESSORS), dtype=np.int64)
        self.counts = np.zeros((FIRST_CAPACITY, SUCCESSORS, COUNTS), dtype=np.float32)
        self.as_of_ms = np.zeros((FIRST_CAPACITY, SUCCESSORS), dtype=np.int64)

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
        found: Ints = sources[self.as_of_ms[self._row[sources]].max(axis=1) >= since_ms]
        return found

    def renumbered(self, sources: Ints) -> tuple["Covisits", Ints]:
        """Return the counts of these items alone; and former numbers: the n-th is now n + 1."""
        rows = self._row[sources]
        numbers = np.unique(np.concatenate((sources, self.successors[rows].ravel())))
        numbers = numbers[numbers > 0]
        names = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.int64)
        names[numbers] = np.arange(1, len(numbers) + 1)
        fresh = Covisits()
        if len(sources):
            into = fresh._rows_for(names[sources])
            fresh.successors[into] = names[self.successors[rows]]
            fresh.counts[into], fresh.as_of_ms[into] = self.counts[rows], self.as_of_ms[rows]
        return fresh, numbers

    def engage(self, items: Ints, times_ms: Ints, histories: Ints) -> None:
        """Count engagements.

        Args:
            items: (N,) engaged items.
            times_ms: (N,) epoch ms.
            histories: (N, DEPTH or more) the user's engagements before, newest first, 0 where there are none.
        """
        before = histories[:, :DEPTH]
        event, position = np.nonzero((before > 0) & (before != items[:, None]))
        if not len(event):
            return
        rows = self._rows_for(before[event, position])
        pairs, inverse = np.unique(rows << 32 | items[event], return_inverse=True)
        rows, targets = pairs >> 32, pairs & 0xFFFFFFFF
        times = times_ms[event]
        newest = np.zeros(len(pairs), dtype=np.int64)
        np.maximum.at(newest, inverse, times)
        weights = np.exp2((times - newest[inverse])[:, None] * -_RATES)  # (E, COUNTS)
        weights[position > 0, :NEAR] = 0.0
        added = np.zeros((len(pairs), COUNTS))
        np.add.at(added, inverse, weights)
        self._add(rows, self._slots_for(rows, targets, newest), newest, added)

    def _add(self, rows: Ints, slots: Ints, newest: Ints, added: npt.NDArray[np.float64]) -> None:
        known = self.as_of_ms[rows, slots]
        as_of = np.maximum(known, newest)
        kept = self.counts[rows, slots] * np.exp2((as_of - known)[:, None] * _RATES)
        self.counts[rows, slots] = kept + added * np.exp2((as_of - newest)[:, None] * _RATES)
        self.as_of_ms[rows, slots] = as_of

    def _rows_for(self, sources: Ints) -> Ints:
        highest = int(sources.max())
        if highest >= len(self._row):
            grown = np.full(max(2 * len(self._row), highest + 1), -1, dtype=np.int64)
            grown[: len(self._row)] = self._row
            self._row = grown
        fresh = np.unique(sources[self._row[sources] < 0])
        end = self._used + len(fresh)
        while end > len(self.successors):
            for name in _ARRAYS:
                old = getattr(self, name)
                setattr(self, name, np.concatenate((old, np.zeros_like(old))))
        self._row[fresh] = np.arange(self._used, end)
        self._used = end
        found: Ints = self._row[sources]
        return found

    def _slots_for(self, rows: Ints, targets: Ints, now_ms: Ints) -> Ints:
        """Return where each pair is kept; a new one takes an empty place, or the weakest successor's."""
        match = self.successors[rows] == targets[:, None]  # (P, SUCCESSORS)
        slots: Ints = match.argmax(axis=1)
        missing = np.flatnonzero(~match[np.arange(len(rows)), slots])
        while len(missing):
            _, first = np.unique(rows[missing], return_index=True)
            chosen = missing[first]
            row = rows[chosen]
            age = np.maximum(now_ms[chosen, None] - self.as_of_ms[row], 0)
            strength = self.counts[row, :, NEAR] * np.exp2(age * _RATES[NEAR])
            strength[self.successors[row] == 0] = -1.0
            slot = strength.argmin(axis=1)
            slots[chosen] = slot
            self.successors[row, slot] = targets[chosen]
            self.counts[row, slot] = 0.0
            self.as_of_ms[row, slot] = now_ms[chosen]
            missing = np.delete(missing, first)
        return slots

    def features(self, histories: Ints, now_ms: Ints, places: Ints | None = None) -> CovisitFeatures:
        """Return the features of users.

        Args:
            histories: (B, DEPTH or more) engagements, newest first, 0 where there are none.
            now_ms: (B,) epoch ms.
            places: Item number to place, -1 for items that are not wanted; entries then name places for items.
        """
        before = histories[:, :DEPTH]
        rows = np.where(before < len(self._row), self._row[np.minimum(before, len(self._row) - 1)], -1)
        rows[before == 0] = -1
        owner, position = np.nonzero(rows >= 0)
        rows = rows[owner, position]
        items = self.successors[rows]  # (R, SUCCESSORS)
        if places is None:
            wanted = items > 0
        else:
            items = places[items]
            wanted = items >= 0
        source, slot = np.nonzero(wanted)
        items, owner, position, rows = items[source, slot], owner[source], position[source], rows[source]
        age = np.maximum(now_ms[owner] - self.as_of_ms[rows, slot], 0).astype(np.float32)
        counts = self.counts[rows, slot]  # (E, COUNTS)
        pairs, inverse = np.unique(owner << 32 | items, return_inverse=True)
        near = np.bincount(inverse, counts[:, NEAR] * np.exp2(age * _RATES[NEAR]), len(pairs))
        after = np.zeros((len(pairs), 2, NEAR), dtype=np.float32)
        for back in range(2):
            newest = position == back
            after[inverse[newest], back] = counts[newest, :NEAR] * np.exp2(age[newest, None] * _RATES[:NEAR])
        return CovisitFeatures(pairs >> 32, pairs & 0xFFFFFFFF, _values(after, near))


def _values(after: Floats, near: npt.NDArray[Any]) -> Floats:
    last, long = after[:, 0], after[:, 0, 1]
    values = np.empty((len(near), COVISITS), dtype=np.float32)
    values[:, 0:2] = np.log1p(last)
    values[:, 2] = np.log1p(SPREAD * long)
    values[:, 3] = long > MIN_COUNT
    values[:, 4:6] = np.log1p(after[:, 1])
    values[:, 6] = np.log1p(near)
    values[:, 7] = np.log1p(SPREAD * near)
    return values

"""Co-visitation: which items are engaged with after which, the streaming features of a user and an item together.

For each item the strongest successors are kept with decayed counts. The features of one user are a sparse matrix: a row
for each item that succeeds one of the user's newest engagements, zeros for all others. Weighted by the user tower they
are more dimensions of the same inner product.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.covisit_features import (
    COUNTS,
    COVISITS,
    DEPTH,
    HALF_LIVES_MS,
    HELD,
    MIN_COUNT,
    NEAR,
    SPREAD,
    SUCCESSORS,
    CovisitFeatures,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int32]

FIRST_CAPACITY = 256
MOST = DEPTH * SUCCESSORS
PLACES = 4096
"""Of the hash table that unites the successors of one user's engagements; a power of two above `MOST`."""
LOGS_TO_ONE = math.e - 1.0
_ARRAYS = ("successors", "counts", "as_of_ms")
_RATES = tuple(-math.log(2.0) / half_life for half_life in HALF_LIVES_MS)
_INTS, _HISTORIES = "int64[::1]", "int64[:, ::1]"
_KEPT = f"int32[:, ::1], float32[:, :, ::1], {_INTS}"
"""Types for the compiler, which runs once, when this module is first imported."""
_EVERYTHING = np.empty(0, dtype=np.int64)


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

    def engage(self, items: Ints, times_ms: Ints, histories: Ints) -> None:
        """Count engagements, one after the other.

        Args:
            items: (N,) engaged items.
            times_ms: (N,) epoch ms.
            histories: (N, DEPTH or more) the user's engagements before, newest first, 0 where there are none.
        """
        self._give_rows(histories[:, :DEPTH])
        items, times_ms, histories = map(np.ascontiguousarray, (items, times_ms, histories))
        _engage(items, times_ms, histories, self._row, self.successors, self.counts, self.as_of_ms)

    def _give_rows(self, sources: Ints) -> None:
        highest = int(sources.max(initial=0))
        if highest >= len(self._row):
            grown = np.full(max(2 * len(self._row), highest + 1), -1, dtype=np.int64)
            grown[: len(self._row)] = self._row
            self._row = grown
        fresh = sources[(self._row[sources] < 0) & (sources > 0)]
        if not len(fresh):
            return
        fresh = np.unique(fresh)
        end = self._used + len(fresh)
        while end > len(self.successors):
            for name in _ARRAYS:
                old = getattr(self, name)
                setattr(self, name, np.concatenate((old, np.zeros_like(old))))
        self._row[fresh] = np.arange(self._used, end)
        self._used = end

    def features(self, histories: Ints, now_ms: Ints, places: Ints = _EVERYTHING) -> CovisitFeatures:
        """Return the features of users.

        Args:
            histories: (B, DEPTH or more) engagements, newest first, 0 where there are none.
            now_ms: (B,) epoch ms.
            places: Item number to place, -1 for items that are not wanted; entries then name places for items.
        """
        most = len(histories) * MOST
        owners, items = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
        values = np.empty((most, COVISITS), dtype=np.float32)
        kept = self.successors, self.counts, self.as_of_ms
        histories, now_ms = np.ascontiguousarray(histories), np.ascontiguousarray(now_ms)
        count = _features(histories, now_ms, places, self._row, *kept, owners, items, values)
        logs = values[:count]
        return CovisitFeatures(owners[:count], items[:count], np.log(np.add(logs, 1.0, out=logs), out=logs))

    def add_scores(
        self, histories: Ints, now_ms: int, weights: Floats, numbers: Ints, places: Ints, scores: Floats
    ) -> None:
        """Add to scores, in place, what the features of users weigh.

        Args:
            histories: (B, DEPTH or more) engagements, newest first, 0 where there are none.
            now_ms: Epoch ms.
            weights: (B, COVISITS) float32.
            numbers: (N,) the items that are scored, 0 for those that nothing is known of.
            places: -1 for each item number, and so it is left: room to look for these items in.
            scores: (B, N) float32.
        """
        kept = self.successors, self.counts, self.as_of_ms
        _add_scores(np.ascontiguousarray(histories), now_ms, weights, numbers, places, self._row, *kept, scores)


@njit("int64(int64, int32[::1], float32[:, ::1])", cache=True, nogil=True)
def _slot_for(item: int, successors: Slots, counts: Floats) -> int:
    """Return where a succession is kept; a new one takes an empty place, or the weakest successor's.

    It takes over what held that place (Metwally et al., Space-Saving), so that newcomers do not evict each other for
    ever and every successor with more than its share of the recent engagements is kept.
    """
    weakest = 0
    for slot in range(SUCCESSORS):
        if successors[slot] == item:
            return slot
        if successors[slot] == 0:
            weakest = slot
            break
        if counts[HELD, slot] < counts[HELD, weakest]:
            weakest = slot
    successors[weakest] = item
    counts[: NEAR + 1, weakest] = 0.0
    return weakest


@njit(f"void({_INTS}, {_INTS}, {_HISTORIES}, {_INTS}, {_KEPT})", cache=True, nogil=True)
def _engage(
    items: Ints, times_ms: Ints, histories: Ints, row_of: Ints, successors: Slots, counts: Floats, as_of_ms: Ints
) -> None:
    for event in range(len(items)):
        item, at_ms = items[event], times_ms[event]
        for position in range(DEPTH):
            source = histories[event, position]
            if source == 0 or source == item:
                continue
            row = row_of[source]
            late_ms = max(as_of_ms[row] - at_ms, 0)
            elapsed_ms = max(at_ms - as_of_ms[row], 0)
            as_of_ms[row] += elapsed_ms
            for window in range(COUNTS):
                kept = np.float32(math.exp(elapsed_ms * _RATES[window]))
                for slot in range(SUCCESSORS):
                    counts[row, window, slot] *= kept
            slot = _slot_for(item, successors[row], counts[row])
            for window in range(COUNTS):
                if position == 0 or window >= NEAR:
                    counts[row, window, slot] += np.float32(math.exp(late_ms * _RATES[window]))


@njit(
    f"int64({_INTS}, int64, {_INTS}, {_INTS}, {_KEPT}, int64, int64, int32[::1], int32[::1], {_INTS}, float32[:, ::1])",
    cache=True,
    nogil=True,
)
def _collect(
    history: Ints,
    now_ms: int,
    places: Ints,
    row_of: Ints,
    successors: Slots,
    counts: Floats,
    as_of_ms: Ints,
    owner: int,
    begin: int,
    table: Slots,
    stamps: Slots,
    items: Ints,
    values: Floats,
) -> int:
    """Write a user's entries from `begin` on, see `_features`, and return where they end."""
    decays = np.empty(HELD, dtype=np.float32)
    end = begin
    for position in range(DEPTH):
        source = history[position]
        if source == 0 or source >= len(row_of) or row_of[source] < 0:
            continue
        row = row_of[source]
        for window in range(HELD):
            decays[window] = math.exp(max(now_ms - as_of_ms[row], 0) * _RATES[window])
        for slot in range(SUCCESSORS):
            item = np.int64(successors[row, slot])
            if item == 0:
                break
            if len(places):
                item = places[item]
                if item < 0:
                    continue
            place = (item * 0x9E3779B1 >> 7) % PLACES
            while stamps[place] == owner and items[table[place]] != item:
                place = (place + 1) % PLACES
            if stamps[place] != owner:
                stamps[place], table[place] = owner, end
                items[end] = item
                values[end] = 0.0
                end += 1
            entry = table[place]
            values[entry, 6] += counts[row, NEAR, slot] * decays[NEAR]
            if position == 0:
                values[entry, 0] += counts[row, 0, slot] * decays[0]
                values[entry, 1] += counts[row, 1, slot] * decays[1]
            elif position == 1:
                values[entry, 4] += counts[row, 0, slot] * decays[0]
                values[entry, 5] += counts[row, 1, slot] * decays[1]
    for entry in range(begin, end):
        values[entry, 2] = SPREAD * values[entry, 1]
        values[entry, 3] = LOGS_TO_ONE if values[entry, 1] > MIN_COUNT else 0.0
        values[entry, 7] = SPREAD * values[entry, 6]
    return end


@njit(
    f"int64({_HISTORIES}, {_INTS}, {_INTS}, {_INTS}, {_KEPT}, {_INTS}, {_INTS}, float32[:, ::1])",
    cache=True,
    nogil=True,
)
def _features(
    histories: Ints,
    now_ms: Ints,
    places: Ints,
    row_of: Ints,
    successors: Slots,
    counts: Floats,
    as_of_ms: Ints,
    owners: Ints,
    items: Ints,
    values: Floats,
) -> int:
    """Write the entries of all users, `values` still without their logarithm, and return how many there are."""
    table, stamps = np.empty(PLACES, dtype=np.int32), np.full(PLACES, -1, dtype=np.int32)
    end = 0
    for owner in range(len(histories)):
        begin, kept = end, (successors, counts, as_of_ms)
        end = _collect(
            histories[owner], now_ms[owner], places, row_of, *kept, owner, begin, table, stamps, items, values
        )
        owners[begin:end] = owner
    return end


@njit(
    f"void({_HISTORIES}, int64, float32[:, :], {_INTS}, {_INTS}, {_INTS}, {_KEPT}, float32[:, :])",
    cache=True,
    nogil=True,
)
def _add_scores(
    histories: Ints,
    now_ms: int,
    weights: Floats,
    numbers: Ints,
    places: Ints,
    row_of: Ints,
    successors: Slots,
    counts: Floats,
    as_of_ms: Ints,
    scores: Floats,
) -> None:
    for place in range(len(numbers)):
        if numbers[place]:
            places[numbers[place]] = place
    table, stamps = np.empty(PLACES, dtype=np.int32), np.full(PLACES, -1, dtype=np.int32)
    items, values = np.empty(MOST, dtype=np.int64), np.empty((MOST, COVISITS), dtype=np.float32)
    one = np.float32(1.0)
    for owner in range(len(histories)):
        kept = (successors, counts, as_of_ms)
        end = _collect(histories[owner], now_ms, places, row_of, *kept, owner, 0, table, stamps, items, values)
        for entry in range(end):
            added = np.float32(0.0)
            for feature in range(COVISITS):
                if values[entry, feature]:  # most are nothing
                    added += weights[owner, feature] * math.log(one + values[entry, feature])
            scores[owner, items[entry]] += added
    for place in range(len(numbers)):
        places[numbers[place]] = -1

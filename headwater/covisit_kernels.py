"""The compiled part of co-visitation: counting successions, and the features of users and items."""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.covisit_features import (
    COUNTS,
    COVISITS,
    DEPTH,
    HALF_LIVES_MS,
    MIN_COUNT,
    NEAR,
    RETENTION,
    SCALE,
    SUCCESSORS,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int32]

MAX_ENTRIES = DEPTH * SUCCESSORS
"""Most items with features per user."""
TABLE_SIZE = 4096
"""Buckets of the hash table that unites the successors of one user's engagements; a power of two above `MAX_ENTRIES`."""
LOGS_TO_ONE = math.e - 1.0
"""Its log1p is 1."""
_RATES = tuple(-math.log(2.0) / half_life for half_life in HALF_LIVES_MS)
_INTS, _HISTORIES = "int64[::1]", "int64[:, ::1]"
_KEPT = f"int32[:, ::1], float32[:, :, ::1], {_INTS}"
"""Types for the compiler, which runs once, when this module is first imported."""


@njit("int64(int64, int32[::1], float32[:, ::1])", cache=True, nogil=True)
def _slot_for(item: int, successors: Slots, counts: Floats) -> int:
    """Return the slot of a succession; a new one takes an empty slot, or the weakest successor's.

    It takes over the retention count of that slot (Metwally et al., Space-Saving), so that newcomers do not evict each other for
    ever and every successor with more than its share of the recent engagements is kept.
    """
    weakest = 0
    for slot in range(SUCCESSORS):
        if successors[slot] == item:
            return slot
        if successors[slot] == 0:
            weakest = slot
            break
        if counts[RETENTION, slot] < counts[RETENTION, weakest]:
            weakest = slot
    successors[weakest] = item
    counts[: NEAR + 1, weakest] = 0.0
    return weakest


@njit(f"void({_INTS}, {_INTS}, {_HISTORIES}, {_INTS}, {_KEPT})", cache=True, nogil=True)
def count_successions(
    items: Ints, times_ms: Ints, histories: Ints, row_of: Ints, successors: Slots, counts: Floats, as_of_ms: Ints
) -> None:
    """Count engagements, see `Covisits.count`."""
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
    column_of: Ints,
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
    """Write a user's entries from `begin` on, see `fill_features`, and return where they end."""
    decays = np.empty(RETENTION, dtype=np.float32)
    end = begin
    for position in range(DEPTH):
        source = history[position]
        if source == 0 or source >= len(row_of) or row_of[source] < 0:
            continue
        row = row_of[source]
        for window in range(RETENTION):
            decays[window] = math.exp(max(now_ms - as_of_ms[row], 0) * _RATES[window])
        for slot in range(SUCCESSORS):
            item = np.int64(successors[row, slot])
            if item == 0:
                break
            if len(column_of):
                item = column_of[item]
                if item < 0:
                    continue
            bucket = (item * 0x9E3779B1 >> 7) % TABLE_SIZE
            while stamps[bucket] == owner and items[table[bucket]] != item:
                bucket = (bucket + 1) % TABLE_SIZE
            if stamps[bucket] != owner:
                stamps[bucket], table[bucket] = owner, end
                items[end] = item
                values[end] = 0.0
                end += 1
            entry = table[bucket]
            values[entry, 6] += counts[row, NEAR, slot] * decays[NEAR]
            if position == 0:
                values[entry, 0] += counts[row, 0, slot] * decays[0]
                values[entry, 1] += counts[row, 1, slot] * decays[1]
            elif position == 1:
                values[entry, 4] += counts[row, 0, slot] * decays[0]
                values[entry, 5] += counts[row, 1, slot] * decays[1]
    for entry in range(begin, end):
        values[entry, 2] = SCALE * values[entry, 1]
        values[entry, 3] = LOGS_TO_ONE if values[entry, 1] > MIN_COUNT else 0.0
        values[entry, 7] = SCALE * values[entry, 6]
    return end


@njit(
    f"int64({_HISTORIES}, {_INTS}, {_INTS}, {_INTS}, {_KEPT}, {_INTS}, {_INTS}, float32[:, ::1])",
    cache=True,
    nogil=True,
)
def fill_features(
    histories: Ints,
    now_ms: Ints,
    column_of: Ints,
    row_of: Ints,
    successors: Slots,
    counts: Floats,
    as_of_ms: Ints,
    owners: Ints,
    items: Ints,
    values: Floats,
) -> int:
    """Write the entries of all users, `values` still without their logarithm, and return how many there are."""
    table, stamps = np.empty(TABLE_SIZE, dtype=np.int32), np.full(TABLE_SIZE, -1, dtype=np.int32)
    end = 0
    for owner in range(len(histories)):
        begin, kept = end, (successors, counts, as_of_ms)
        end = _collect(
            histories[owner], now_ms[owner], column_of, row_of, *kept, owner, begin, table, stamps, items, values
        )
        owners[begin:end] = owner
    return end


@njit(
    f"void({_HISTORIES}, int64, float32[:, :], {_INTS}, {_INTS}, {_INTS}, {_KEPT}, float32[:, :])",
    cache=True,
    nogil=True,
)
def add_scores(
    histories: Ints,
    now_ms: int,
    weights: Floats,
    numbers: Ints,
    column_of: Ints,
    row_of: Ints,
    successors: Slots,
    counts: Floats,
    as_of_ms: Ints,
    scores: Floats,
) -> None:
    """Add to `scores`, see `Covisits.add_scores`; `column_of` is -1 everywhere, before and after."""
    for column in range(len(numbers)):
        if numbers[column]:
            column_of[numbers[column]] = column
    table, stamps = np.empty(TABLE_SIZE, dtype=np.int32), np.full(TABLE_SIZE, -1, dtype=np.int32)
    items, values = np.empty(MAX_ENTRIES, dtype=np.int64), np.empty((MAX_ENTRIES, COVISITS), dtype=np.float32)
    one = np.float32(1.0)
    for owner in range(len(histories)):
        kept = (successors, counts, as_of_ms)
        end = _collect(histories[owner], now_ms, column_of, row_of, *kept, owner, 0, table, stamps, items, values)
        for entry in range(end):
            added = np.float32(0.0)
            for feature in range(COVISITS):
                if values[entry, feature]:  # most are nothing
                    added += weights[owner, feature] * math.log(one + values[entry, feature])
            scores[owner, items[entry]] += added
    for column in range(len(numbers)):
        column_of[numbers[column]] = -1

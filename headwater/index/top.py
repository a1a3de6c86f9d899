"""Selection of the best of many scores."""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

NEVER = np.float32(-np.inf)
"""The score of what must not be found."""
GROUPS = 2
"""Groups of scores per requested one."""
MIN_GROUP = 4
"""Scores per group from which grouping pays."""
NOTHING = np.uint64(2**64 - 1)
_SIGN, _POSITION = np.uint32(2**31), np.uint64(2**32 - 1)


def top(scores: Floats, k: int) -> tuple[Ints, Floats, Ints]:
    """Return the best of each row, best first, equal ones in order of position.

    Args:
        scores: (B, N) float32, `NEVER` where it must not be found.
        k: How many at most.

    Returns:
        Positions (B, k), their scores (B, k), and how many of them a row has, (B,).
    """
    k = min(k, scores.shape[1])
    positions, best = np.zeros((len(scores), k), dtype=np.int64), np.full((len(scores), k), NEVER)
    counts = np.zeros(len(scores), dtype=np.int64)
    if k and len(scores):
        scores = np.ascontiguousarray(scores)
        keys = _keys(scores, _bars(scores, k), k)
        keys.sort(axis=1)
        _read(keys, scores, positions, best, counts)
    return positions, best, counts


def _bars(scores: Floats, k: int) -> Floats:
    """Return for each row a bar that at least k scores reach, and few more: the k-th best of the groups' highest."""
    size = GROUPS * k
    if scores.shape[1] < MIN_GROUP * size:
        return np.full(len(scores), NEVER)
    highest = _highest(scores, size)
    highest.partition(size - k, axis=1)
    return np.ascontiguousarray(highest[:, size - k])


@njit("float32[:, ::1](float32[:, ::1], int64)", cache=True, nogil=True)
def _highest(scores: Floats, size: int) -> Floats:
    """Return the highest of each group of scores, (B, size)."""
    highest = np.full((len(scores), size), NEVER)
    for row in range(len(scores)):
        groups = highest[row]
        for begin in range(0, scores.shape[1] - size + 1, size):
            for group in range(size):
                score = scores[row, begin + group]
                groups[group] = score if score > groups[group] else groups[group]
    return highest


@njit("uint64[:, ::1](float32[:, ::1], float32[::1], int64)", cache=True, nogil=True)
def _keys(scores: Floats, bars: Floats, k: int) -> Keys:
    """Return candidates for the best of each row as integers of score and position, the best smallest."""
    above = np.zeros(len(scores), dtype=np.int64)
    for row in range(len(scores)):
        for position in range(scores.shape[1]):
            above[row] += scores[row, position] > bars[row]
    keys = np.full((len(scores), max(k, above.max())), NOTHING)
    bits = scores.view(np.uint32)
    for row in range(len(scores)):
        bar, end = bars[row], 0
        level = k - above[row] if bar > NEVER else 0
        for position in range(scores.shape[1]):
            score = scores[row, position]
            if not (score > bar or (score == bar and level > 0)):  # NaN is neither
                continue
            level -= score == bar
            pattern = bits[row, position]
            falling = pattern if pattern & _SIGN else ~pattern & ~_SIGN
            keys[row, end] = np.uint64(falling) << np.uint64(32) | np.uint64(position)
            end += 1
    return keys


@njit("void(uint64[:, ::1], float32[:, ::1], int64[:, ::1], float32[:, ::1], int64[::1])", cache=True, nogil=True)
def _read(keys: Keys, scores: Floats, positions: Ints, best: Floats, counts: Ints) -> None:
    """Write the positions and scores of each row's first keys."""
    for row in range(len(keys)):
        for rank in range(positions.shape[1]):
            if keys[row, rank] == NOTHING:
                break
            position = np.int64(keys[row, rank] & _POSITION)
            positions[row, rank], best[row, rank] = position, scores[row, position]
            counts[row] += 1

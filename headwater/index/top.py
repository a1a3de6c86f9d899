"""The best of many scores: what is left of a search once the matrix product is done."""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

NEVER = np.float32(-np.inf)
"""The score of what must not be found."""
GROUPS, GROUP = 2, 4
"""Groups of scores for each one that is wanted, and how large they must be to be worth their while."""
NOTHING = np.uint64(2**64 - 1)
_SIGN, _PLACE = np.uint32(2**31), np.uint64(2**32 - 1)


def top(scores: Floats, k: int) -> tuple[Ints, Floats, Ints]:
    """Return the best of each row, best first, equal ones in order of place.

    Args:
        scores: (B, N) float32, `NEVER` for what must not be found.
        k: How many at most.

    Returns:
        Places (B, k), their scores (B, k), and how many of them a row has, (B,).
    """
    k = min(k, scores.shape[1])
    places, best = np.zeros((len(scores), k), dtype=np.int64), np.full((len(scores), k), NEVER)
    counts = np.zeros(len(scores), dtype=np.int64)
    if k and len(scores):
        scores = np.ascontiguousarray(scores)
        keys = _keys(scores, _bars(scores, k), k)
        keys.sort(axis=1)
        _read(keys, scores, places, best, counts)
    return places, best, counts


def _bars(scores: Floats, k: int) -> Floats:
    """Return for each row what at least k scores are not below, and few more: so many groups hold one."""
    size = GROUPS * k
    if scores.shape[1] < GROUP * size:
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
    """Return what may be among the best of each row as numbers, the better the smaller, that hold score and place."""
    above = np.zeros(len(scores), dtype=np.int64)
    for row in range(len(scores)):
        for place in range(scores.shape[1]):
            above[row] += scores[row, place] > bars[row]
    keys = np.full((len(scores), max(k, above.max())), NOTHING)
    bits = scores.view(np.uint32)
    for row in range(len(scores)):
        bar, end = bars[row], 0
        level = k - above[row] if bar > NEVER else 0
        for place in range(scores.shape[1]):
            score = scores[row, place]
            if not (score > bar or (score == bar and level > 0)):  # what is no number is neither
                continue
            level -= score == bar
            pattern = bits[row, place]
            falling = pattern if pattern & _SIGN else ~pattern & ~_SIGN
            keys[row, end] = np.uint64(falling) << np.uint64(32) | np.uint64(place)
            end += 1
    return keys


@njit("void(uint64[:, ::1], float32[:, ::1], int64[:, ::1], float32[:, ::1], int64[::1])", cache=True, nogil=True)
def _read(keys: Keys, scores: Floats, places: Ints, best: Floats, counts: Ints) -> None:
    """Write where the first of each row's keys stand, and their scores."""
    for row in range(len(keys)):
        for rank in range(places.shape[1]):
            if keys[row, rank] == NOTHING:
                break
            place = np.int64(keys[row, rank] & _PLACE)
            places[row, rank], best[row, rank] = place, scores[row, place]
            counts[row] += 1

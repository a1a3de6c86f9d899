"""The best of many scores: what is left of a search once the matrix product is done."""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NEVER = np.float32(-np.inf)
"""The score of what must not be found."""
GROUPS, GROUP = 2, 4
"""Groups of scores for each one that is wanted, and how large they must be to be worth their while."""
_PLACES, _SCORES = "int64[::1]", "float32[::1]"


def top(scores: Floats, k: int) -> tuple[Ints, Floats, Ints]:
    """Return the best of each row, best first, equal ones in order of place.

    Args:
        scores: (B, N) float32, `NEVER` for what must not be found.
        k: How many at most.

    Returns:
        Places (B, k), their scores (B, k), and how many of them a row has, (B,).
    """
    k = min(k, scores.shape[1])
    places, best = np.empty((len(scores), k), dtype=np.int64), np.empty((len(scores), k), dtype=np.float32)
    counts = np.zeros(len(scores), dtype=np.int64)
    if k:
        _collect(np.ascontiguousarray(scores), places, best, counts)
    return places, best, counts


@njit(f"void({_PLACES}, {_SCORES}, int64, int64, float32, int64)", cache=True, nogil=True)
def _sink(places: Ints, best: Floats, count: int, place: int, score: float, at: int) -> None:
    """Put an entry into the heap of the first `count`, at `at` or below: on top is the worst, of equals the last."""
    while True:
        below = 2 * at + 1
        if below >= count:
            break
        other = below + 1
        if other < count and (
            best[other] < best[below] or (best[other] == best[below] and places[other] > places[below])
        ):
            below = other
        if score < best[below] or (score == best[below] and place > places[below]):
            break
        places[at], best[at] = places[below], best[below]
        at = below
    places[at], best[at] = place, score


@njit(f"int64({_SCORES}, float32, {_PLACES}, {_SCORES})", cache=True, nogil=True)
def _best(scores: Floats, bar: np.float32, places: Ints, best: Floats) -> int:
    """Make a heap of the best entries that are not below `bar`; return how many they are."""
    count, place = 0, 0
    while count < len(places) and place < len(scores):
        if scores[place] >= bar and scores[place] > NEVER:
            places[count], best[count] = place, scores[place]
            count += 1
        place += 1
    for at in range(count // 2 - 1, -1, -1):
        _sink(places, best, count, places[at], best[at], at)
    if count == len(places):
        bar = best[0]
    while place < len(scores):
        if scores[place] > bar:
            _sink(places, best, count, place, scores[place], 0)
            bar = best[0]
        place += 1
    return count


@njit(f"float32({_SCORES}, {_PLACES}, {_SCORES}, {_SCORES})", cache=True, nogil=True)
def _bar(scores: Floats, places: Ints, best: Floats, groups: Floats) -> np.float32:
    """Return what as many scores as there is room for are not below, and few more: so many groups hold one."""
    size = len(groups)
    if len(scores) < GROUP * size:
        return NEVER
    groups[:] = scores[:size]
    for begin in range(size, len(scores) - size + 1, size):
        for group in range(size):
            score = scores[begin + group]
            groups[group] = score if score > groups[group] else groups[group]
    return best[0] if _best(groups, NEVER, places, best) == len(places) else NEVER


@njit("void(float32[:, ::1], int64[:, ::1], float32[:, ::1], int64[::1])", cache=True, nogil=True)
def _collect(scores: Floats, places: Ints, best: Floats, counts: Ints) -> None:
    """Write the best of each row, which come out of their heap from the worst to the best."""
    groups = np.empty(GROUPS * places.shape[1], dtype=np.float32)
    for row in range(len(scores)):
        found, of = places[row], best[row]
        count = _best(scores[row], _bar(scores[row], found, of, groups), found, of)
        counts[row] = count
        for end in range(count - 1, 0, -1):
            last, least = found[end], of[end]
            found[end], of[end] = found[0], of[0]
            _sink(found, of, end, last, least, 0)
        found[count:], of[count:] = 0, NEVER

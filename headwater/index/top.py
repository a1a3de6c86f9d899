"""The best of many scores: what is left of a search once the matrix product is done."""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NEVER = np.float32(-np.inf)
"""The score of what must not be found."""


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
    if k:
        worst = np.partition(scores, -k, axis=1)[:, -k]
        _collect(np.ascontiguousarray(scores), np.ascontiguousarray(worst), places, best, counts)
        _sort(places, best, counts)
    return places, best, counts


@njit("void(float32[:, ::1], float32[::1], int64[:, ::1], float32[:, ::1], int64[::1])", cache=True, nogil=True)
def _collect(scores: Floats, worst: Floats, places: Ints, best: Floats, counts: Ints) -> None:
    """Write what is above each row's `worst` of the best, and as many of its equals as there is room for."""
    k = places.shape[1]
    for row in range(len(scores)):
        bar, above, count = worst[row], 0, 0
        for place in range(scores.shape[1]):
            above += scores[row, place] > bar
        equals = k - above if bar > NEVER else 0
        for place in range(scores.shape[1]):
            score = scores[row, place]
            if score > bar or (score == bar and equals > 0):
                equals -= score == bar
                places[row, count], best[row, count] = place, score
                count += 1
        counts[row] = count


@njit("void(int64[:, ::1], float32[:, ::1], int64[::1])", cache=True, nogil=True)
def _sort(places: Ints, best: Floats, counts: Ints) -> None:
    """Put each row's best first; equal ones stay in order of place."""
    for row in range(len(counts)):
        count = counts[row]
        order = np.argsort(-best[row, :count], kind="mergesort")
        best[row, :count], places[row, :count] = best[row, :count][order], places[row, :count][order]

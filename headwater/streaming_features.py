"""The streaming features of items, which change by the second; compiled, since every query and example reads many."""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.activity import HALF_LIVES_MS, WINDOWS
from headwater.durations import HOUR_MS
from headwater.features import (
    AGE_FEATURES,
    AGE_SCALES_H,
    END_OF_AGES,
    END_OF_LOGS,
    HINGE_POINTS,
    HINGED_WINDOWS,
    STREAMING,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_RATES = tuple(np.float32(-math.log(2.0) / half_life) for half_life in HALF_LIVES_MS)
_AGE_RATES = tuple(np.float32(-1.0 / age) for age in AGE_SCALES_H)
_HINGES = tuple(np.float32(hinge) for hinge in HINGE_POINTS)
_HOUR_MS = float(HOUR_MS)  # ages are divided in 64 bits
_INTS = "int64[::1]"


def streaming_features(
    counts: Floats,
    totals: Ints,
    as_of_ms: Ints,
    first_ms: Ints,
    published_at_ms: Ints,
    now_ms: int,
    into: Floats | None = None,
) -> Floats:
    """Return the streaming dimensions of N items.

    Args:
        counts: (N, WINDOWS) float32, as of `as_of_ms`; never grown where that is later than `now_ms`.
        totals: (N,) int64, engagements ever.
        as_of_ms: (N,) int64.
        first_ms: (N,) int64, first engagement, later than `now_ms` where there is none.
        published_at_ms: (N,) int64.
        now_ms: Epoch ms.
        into: (N, STREAMING) float32, where to write them.

    Returns:
        (N, STREAMING) float32: log1p of each decayed count and of the total; log1p age in hours and e^(-age / a) for
        each of `AGE_SCALES_H`, since publication and then since the first engagement; then hinge terms, so that a linear
        score is piecewise linear in them: by how much the logs of `HINGED_WINDOWS` exceed each of `HINGE_POINTS`; and
        these logs multiplied by each e^(-age / a) since the first engagement, which is right where publish times are
        late, early or of another time zone.
    """
    features = into if into is not None else np.empty((len(counts), STREAMING), dtype=np.float32)
    totals, as_of_ms, first_ms, published_at_ms = map(
        np.ascontiguousarray, (totals, as_of_ms, first_ms, published_at_ms)
    )
    _fill(np.ascontiguousarray(counts), totals, as_of_ms, first_ms, published_at_ms, now_ms, features)
    return features


@njit(f"void(float32[:, ::1], {_INTS}, {_INTS}, {_INTS}, {_INTS}, int64, float32[:, ::1])", cache=True, nogil=True)
def _fill(
    counts: Floats,
    totals: Ints,
    as_of_ms: Ints,
    first_ms: Ints,
    published_at_ms: Ints,
    now_ms: int,
    features: Floats,
) -> None:
    # Most items have no counts and were never engaged with: log 1 and e^0 need not be computed.
    one = np.float32(1.0)
    for row in range(len(counts)):
        elapsed_ms = np.float32(max(now_ms - as_of_ms[row], 0))
        for window in range(WINDOWS):
            count = counts[row, window]
            features[row, window] = math.log(one + count * math.exp(elapsed_ms * _RATES[window])) if count else count
        features[row, WINDOWS] = math.log(np.float32(totals[row] + 1))
        for since, begin in ((published_at_ms, END_OF_LOGS), (first_ms, END_OF_LOGS + AGE_FEATURES)):
            age_h = np.float32(max(now_ms - since[row], 0) / _HOUR_MS)
            features[row, begin] = math.log(one + age_h) if age_h else age_h
            for scale in range(len(AGE_SCALES_H)):
                features[row, begin + 1 + scale] = math.exp(age_h * _AGE_RATES[scale]) if age_h else one
        column = END_OF_AGES
        for window in HINGED_WINDOWS:
            for hinge in _HINGES:
                features[row, column] = max(features[row, window] - hinge, np.float32(0.0))
                column += 1
        for window in HINGED_WINDOWS:
            for scale in range(len(AGE_SCALES_H)):
                features[row, column] = features[row, window] * features[row, END_OF_LOGS + AGE_FEATURES + 1 + scale]
                column += 1

"""The features of a user and an item that co-visitation gives: their shape and meaning."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.durations import DAY_MS, HOUR_MS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

DEPTH = 10
"""Newest engagements of a user whose successors count."""
SUCCESSORS = 128
"""Successors kept per item."""
HALF_LIVES_MS = (HOUR_MS, DAY_MS, DAY_MS, DAY_MS)
"""Of the decayed counts of a succession:

0. direct ones, short-term;
1. direct ones, long-term;
2. those among the next `DEPTH` engagements (`NEAR`);
3. as 2, but a new successor inherits that of the one it replaces, which is the one with the least (`RETENTION`).
"""
COUNTS = len(HALF_LIVES_MS)
NEAR = 2
RETENTION = 3
RETENTION_MS = 7 * HALF_LIVES_MS[NEAR]
"""How long an item's successors are kept after its last succession."""
COVISITS = 8
"""Features of one user and one item:

0. log1p of the short-term direct count after the newest engagement;
1. log1p of the long-term one;
2. log1p of `SCALE` times the long-term one;
3. 1 where the long-term one is above `MIN_COUNT`, else 0;
4. log1p of the short-term direct count after the second newest engagement;
5. log1p of the long-term one;
6. log1p of the near count, summed over the newest `DEPTH` engagements (`NEAR_LOG`);
7. log1p of `SCALE` times that.
"""
NEAR_LOG = 6
MIN_COUNT = 0.01
"""Long-term count above which an item counts as a direct successor."""
SCALE = 10.0
"""Spreads counts far below 1, of which log1p alone is almost linear."""


class CovisitFeatures(NamedTuple):
    """Sparse features (B, N, COVISITS): entry e belongs to user `owners[e]` and item `items[e]`, each pair once.

    Attributes:
        owners: (E,) ascending.
    """

    owners: Ints
    items: Ints
    values: Floats

"""What co-visitation tells of a user and an item: the shape and meaning of its features."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

DEPTH = 10
"""Newest engagements whose successors count."""
SUCCESSORS = 128
"""Successors kept of an item."""
HALF_LIVES_MS = (3_600_000, 86_400_000, 86_400_000, 86_400_000)
"""Of the counts: directly after, in the short and in the long run; among the next `DEPTH`; and what keeps a place."""
KEPT_MS = 7 * HALF_LIVES_MS[2]
"""How long what succeeds an item is kept after its last successor."""
COUNTS = len(HALF_LIVES_MS)
NEAR, HELD = 2, 3
COVISITS = 8
"""Of one user and item: log1p of both direct counts after the newest engagement, of the longer one times `SPREAD`, whether
it is above `MIN_COUNT`; log1p of both direct counts after the second newest; log1p of the near count, and times `SPREAD`."""
NEAR_LOG = 6
MIN_COUNT = 0.01
SPREAD = 10.0


class CovisitFeatures(NamedTuple):
    """Sparse features (B, N, COVISITS): entry e belongs to user `owners[e]` and item `items[e]`, each pair once.

    Attributes:
        owners: (E,) ascending.
    """

    owners: Ints
    items: Ints
    values: Floats

"""Item activities as rows, compiled: a worker counts every engagement. See `headwater.activity`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import from_dtype, njit, types

from headwater.activity import FORMAT, HALF_LIVES_MS, WINDOWS, ItemActivity
from headwater.fold import Outcome

ACTIVITY = np.dtype(
    [
        ("format", "u1"),
        ("as_of_ms", "<i8"),
        ("first_ms", "<i8"),
        ("total", "<i8"),
        ("offset", "<i8"),
        ("counts", "<f8", WINDOWS),
    ]
)
"""The bytes of a row are those that `decode_activity` reads."""
FIRST_ROOM = 64

Ints = npt.NDArray[np.int64]
_APPLIED = int(Outcome.APPLIED)
_ROWS, _INTS = types.Array(from_dtype(ACTIVITY), 1, "C"), types.int64[::1]


class Activities:
    """Activities of items by partition.

    Attributes:
        rows: (partition, item_id) to row.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], int] = {}
        self._states = np.empty(FIRST_ROOM, ACTIVITY)

    def __len__(self) -> int:
        return len(self.rows)

    def put(self, key: tuple[int, str], activity: ItemActivity) -> None:
        """Set an activity."""
        row = self.rows.setdefault(key, len(self.rows))
        if row == len(self._states):
            self._states = np.concatenate((self._states, np.empty(row, ACTIVITY)))
        counts, as_of_ms, total, offset, first_ms = activity
        self._states[row] = FORMAT, as_of_ms, first_ms, total, offset, counts

    def count(self, rows: Ints, times_ms: Ints, offsets: Ints, outcomes: Ints) -> None:
        """Count the engagements whose outcome is APPLIED, in order.

        Args:
            rows: (N,) rows of the activities to count in.
            times_ms: (N,) epoch ms.
            offsets: (N,) positions in the partition; one that is applied already changes nothing.
            outcomes: (N,) of `Outcome`.
        """
        _count(self._states, rows, times_ms, offsets, outcomes)

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Return activities as stored in Redis and published in `item-activity`; empty bytes where nothing was counted."""
        states = self._states[rows]
        data, size = states.tobytes(), ACTIVITY.itemsize
        return [data[n * size : (n + 1) * size] if total else b"" for n, total in enumerate(states["total"].tolist())]


@njit(types.void(_ROWS, _INTS, _INTS, _INTS, _INTS), cache=True, nogil=True)
def _count(states: npt.NDArray[np.void], rows: Ints, times_ms: Ints, offsets: Ints, outcomes: Ints) -> None:
    for n in range(len(rows)):
        activity = states[rows[n]]
        if outcomes[n] != _APPLIED or offsets[n] <= activity.offset:
            continue
        later_ms = times_ms[n] - activity.as_of_ms
        for window in range(WINDOWS):
            decay = 2.0 ** (-abs(later_ms) / HALF_LIVES_MS[window])
            if later_ms >= 0:
                activity.counts[window] = activity.counts[window] * decay + 1.0
            else:
                activity.counts[window] += decay
        activity.as_of_ms = max(activity.as_of_ms, times_ms[n])
        activity.first_ms = min(activity.first_ms, times_ms[n])
        activity.offset = offsets[n]
        activity.total += 1

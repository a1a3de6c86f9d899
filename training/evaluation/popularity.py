"""The strongest simple baseline: engagements inside the topic over sliding windows."""

import numpy as np
import numpy.typing as npt

from headwater.durations import DAY_MS, HOUR_MS, MINUTE_MS

Ints = npt.NDArray[np.int64]
WINDOWS_MS = {
    "popularity-10m": 10 * MINUTE_MS,
    "popularity-1h": HOUR_MS,
    "popularity-3h": 3 * HOUR_MS,
    "popularity-24h": DAY_MS,
}


class SlidingCounts:
    """Exact counts of the engagements before an instant, for each window.

    Args:
        items, times_ms: The whole log in order of time, (N,) numbers and epoch ms.
        size: One more than the largest item number.
        whole: Count everything since the beginning in every window.
        before: Offset added to rows passed to `advance`.
    """

    def __init__(self, items: Ints, times_ms: Ints, size: int, whole: bool = False, before: int = 0) -> None:
        self._items, self._times_ms = items, times_ms
        self._whole, self._before = whole, before
        self.counts = np.zeros((len(WINDOWS_MS), size), dtype=np.int64)
        self._begins = [0] * len(WINDOWS_MS)
        self._end = 0

    def advance(self, row: int, now_ms: int) -> None:
        """Count rows before `row`, forget what left a window by `now_ms`."""
        row += self._before
        fresh = self._items[self._end : row]
        for window, length_ms in enumerate(WINDOWS_MS.values()):
            np.add.at(self.counts[window], fresh, 1)
            if not self._whole:
                begin = min(row, int(np.searchsorted(self._times_ms, now_ms - length_ms)))
                np.subtract.at(self.counts[window], self._items[self._begins[window] : begin], 1)
                self._begins[window] = max(begin, self._begins[window])
        self._end = row

    def rank(self, window: int, items: Ints, position: int, published_ms: Ints) -> int:
        """Return the rank of `items[position]` by one window's counts; ties go to the next wider window, then the newest."""
        keys = [
            published_ms[items],
            *(self.counts[wider, items] for wider in range(len(WINDOWS_MS) - 1, window - 1, -1)),
        ]
        order = np.lexsort([-key for key in keys])
        return int(np.flatnonzero(order == position)[0]) + 1

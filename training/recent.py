"""Recent engagements, which popularity windows count."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from training.evaluation.popularity import WINDOWS_MS
from training.examples import Examples

MAX_RECENT = 5_000_000
LONGEST_MS = max(WINDOWS_MS.values())


@dataclass
class Recent:
    """The newest engagements since the checkpoint was read, as far back as popularity windows reach."""

    items: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    times_ms: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.items)

    def add(self, examples: Examples) -> None:
        """Add examples, late ones in their place; drop those older than the longest window or beyond `MAX_RECENT`."""
        items = np.concatenate((self.items, examples.items))
        times_ms = np.concatenate((self.times_ms, examples.times_ms))
        in_time = np.argsort(times_ms, kind="stable")
        items, times_ms = items[in_time], times_ms[in_time]
        first = max(int(np.searchsorted(times_ms, times_ms[-1] - LONGEST_MS)), len(items) - MAX_RECENT)
        first = min(first, len(items) - len(examples))
        self.items, self.times_ms = items[first:], times_ms[first:]

"""Numbers for items, so that arrays can hold what is known of them."""

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt

from headwater.texts import Texts

Ints = npt.NDArray[np.int64]


class ItemNumbers(Texts):
    """Numbers item ids from 1 as they come, and lets go of some.

    Attributes:
        epoch: Numbers stand for the same items as long as this is the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self._scratch = np.full(1, -1, dtype=np.int64)

    def known(self, item_ids: Sequence[str]) -> list[int]:
        """Return items' numbers, 0 for those that have none."""
        return list(map(self._numbers.get, item_ids, repeat(0)))

    def scratch(self) -> Ints:
        """Return -1 for each number: scratch space, to be restored after use."""
        if len(self._scratch) < len(self.texts):
            self._scratch = np.full(2 * len(self.texts), -1, dtype=np.int64)
        return self._scratch

    def keep(self, numbers: Ints) -> None:
        """Drop all other items; the n-th of `numbers` is now n + 1."""
        kept = [self.texts[number] for number in numbers.tolist()]
        super().__init__()
        self.numbers(kept)
        self.epoch += 1

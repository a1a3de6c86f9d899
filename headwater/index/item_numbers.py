"""Numbers for items, so that arrays can hold what is known of them."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class ItemNumbers:
    """Numbers items from 1 as they come.

    Attributes:
        item_ids: The item of each number; nothing has 0.
        epoch: Numbers stand for the same items as long as this is the same.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.item_ids = [""]
        self.epoch = 0
        self._scratch = np.full(1, -1, dtype=np.int64)

    def number(self, item_id: str) -> int:
        """Return an item's number; a new item gets the next one."""
        number = self._numbers.get(item_id)
        if number is None:
            number = self._numbers[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)
        return number

    def get(self, item_id: str) -> int:
        """Return an item's number, 0 for one that has none."""
        return self._numbers.get(item_id, 0)

    def scratch(self) -> Ints:
        """Return -1 for each number: scratch space, to be restored after use."""
        if len(self._scratch) < len(self.item_ids):
            self._scratch = np.full(2 * len(self.item_ids), -1, dtype=np.int64)
        return self._scratch

    def keep(self, numbers: Ints) -> None:
        """Drop all other items; the n-th of `numbers` is now n + 1."""
        self.item_ids = ["", *(self.item_ids[number] for number in numbers.tolist())]
        self._numbers = {item_id: number for number, item_id in enumerate(self.item_ids) if number}
        self.epoch += 1

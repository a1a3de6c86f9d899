"""Numbers for items, so that what is known of many items at once can be kept in arrays."""

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
        self._places = np.full(1, -1, dtype=np.int64)

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

    def places(self) -> Ints:
        """Return -1 for each number: room for whoever looks for some of them, to be left as it was."""
        if len(self._places) < len(self.item_ids):
            self._places = np.full(2 * len(self.item_ids), -1, dtype=np.int64)
        return self._places

    def keep(self, numbers: Ints) -> None:
        """Drop all other items; the n-th of `numbers` is now n + 1."""
        self.item_ids = ["", *(self.item_ids[number] for number in numbers.tolist())]
        self._numbers = {item_id: number for number, item_id in enumerate(self.item_ids) if number}
        self.epoch += 1

"""Sparse dimensions of an inner product: what they add to the scores of single items."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.index.block import Block
from headwater.index.item_numbers import ItemNumbers
from headwater.sparse_rows import entries_of

DENSE = 64
"""Rows for each entry up to which it pays to find the rows of all entries at once."""
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class AddedScores(NamedTuple):
    """A sparse matrix (B, N): entry e adds `scores[e]` to item `items[e]` of row `owners[e]`, each pair once.

    Attributes:
        owners: (E,) ascending.
        items: (E,) numbers in `names`.
    """

    owners: Ints
    items: Ints
    scores: Floats
    names: ItemNumbers

    def of(self, rows: Sequence[int]) -> "AddedScores":
        """Return the entries of some rows, ascending, who become 0, 1 …."""
        owners, entries = entries_of(self.owners, rows)
        return AddedScores(owners, self.items[entries], self.scores[entries], self.names)

    def within(self, block: Block) -> "AddedRows":
        """Return the entries of items that a block has."""
        if len(block) <= DENSE * len(self.items):
            rows = self.names.places(self.items, block.numbers(self.names))
        else:
            item_ids = self.names.item_ids
            rows = np.array([block.rows.get(item_ids[item], -1) for item in self.items.tolist()], dtype=np.int64)
        kept = rows >= 0
        return AddedRows(self.owners[kept], rows[kept], self.scores[kept])


class AddedRows(NamedTuple):
    """`AddedScores` in the rows of one block."""

    owners: Ints
    rows: Ints
    scores: Floats

    def of(self, begin: int, end: int) -> "AddedRows":
        """Return the entries of owners `begin` to `end`, who become 0, 1 …."""
        part = slice(*np.searchsorted(self.owners, (begin, end)))
        return AddedRows(self.owners[part] - begin, self.rows[part], self.scores[part])


NOTHING = AddedScores(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), ItemNumbers())

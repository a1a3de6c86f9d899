"""Sparse dimensions of an inner product: what they add to the scores of single items."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class AddedScores(NamedTuple):
    """A sparse matrix (B, N): entry e adds `scores[e]` to item `item_ids[items[e]]` of row `owners[e]`, each pair once.

    Attributes:
        owners: (E,) ascending.
        items: (E,) places in `item_ids`.
    """

    owners: Ints
    items: Ints
    item_ids: list[str]
    scores: Floats

    def within(self, rows: Mapping[str, int]) -> "AddedRows":
        """Return the entries of items that have a row."""
        row_of = np.fromiter((rows.get(item_id, -1) for item_id in self.item_ids), np.int64, len(self.item_ids))
        entry_rows = row_of[self.items]
        kept = entry_rows >= 0
        return AddedRows(self.owners[kept], entry_rows[kept], self.scores[kept])


class AddedRows(NamedTuple):
    """`AddedScores` in the rows of one block."""

    owners: Ints
    rows: Ints
    scores: Floats

    def of(self, begin: int, end: int) -> "AddedRows":
        """Return the entries of owners `begin` to `end`, who become 0, 1 …."""
        part = slice(*np.searchsorted(self.owners, (begin, end)))
        return AddedRows(self.owners[part] - begin, self.rows[part], self.scores[part])


NOTHING = AddedScores(np.empty(0, np.int64), np.empty(0, np.int64), [], np.empty(0, np.float32))

"""Sparse dimensions of an inner product: scores added to single items."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from headwater.index.block import Block


class AddedRows(NamedTuple):
    """What is added in one block: `scores[e]` to row `rows[e]` in the answer for `owners[e]`, each pair once, (E,)."""

    owners: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class AddedScores(Protocol):
    """A sparse matrix (B, N) of which only the items that are searched need to be known."""

    def of(self, rows: Sequence[int] | slice) -> "AddedScores":
        """Return some of the B rows."""
        ...

    def add_to(self, scores: npt.NDArray[np.float32], block: Block) -> None:
        """Add to the scores (B, N) of all items of a block, in place."""
        ...

    def within(self, block: Block) -> AddedRows:
        """Return what is added to items of a block."""
        ...

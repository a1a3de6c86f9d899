"""Rows of a sparse matrix whose entries are sorted by the row that owns them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def bounds(owners: Ints, rows: Ints | Sequence[int]) -> tuple[Ints, Ints]:
    """Return where the entries of some rows begin and end; `owners` (E,) is the row of each entry, ascending."""
    return np.searchsorted(owners, rows), np.searchsorted(owners, rows, side="right")


def entries_of(owners: Ints, rows: Ints | Sequence[int]) -> tuple[Ints, Ints]:
    """Return the entries of some rows.

    Args:
        owners: (E,) the row of each entry, ascending.
        rows: Which ones, a row perhaps several times.

    Returns:
        The place in `rows` of each entry's row, ascending, and the entry.
    """
    begins, ends = bounds(owners, rows)
    counts = ends - begins
    entries = np.arange(counts.sum()) + np.repeat(begins - np.cumsum(counts) + counts, counts)
    return np.repeat(np.arange(len(rows)), counts), entries

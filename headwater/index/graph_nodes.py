"""The nodes of an HNSW graph: hnswlib's index, and a hash table from embeddings to nodes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.errors import UsageError

if TYPE_CHECKING:
    import hnswlib

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int32]

FIRST_ROOM = 1024
NEIGHBOURS = 16
EF_CONSTRUCTION = 200
MIN_EF = 800
DEAD = -1
"""Stored instead of a row: no row uses the node."""
SEVERAL = -2
"""Stored instead of a row: several rows use the node."""
FREE = -1
"""An empty bucket of the hash table."""


class GraphNodes:
    """The nodes of one HNSW index by the hashes of their embeddings, numbered as they come: hnswlib's labels.

    A hash table leads from hashes to numbers: a dictionary of a million takes twelve times as much memory.

    Args:
        hnsw: hnswlib's index.

    Attributes:
        live: How many are not dead.
    """

    def __init__(self, hnsw: "hnswlib.Index") -> None:
        self.hnsw = hnsw
        self.live = 0
        self._count = int(hnsw.get_current_count())
        self._hashes = np.zeros(hnsw.get_max_elements(), dtype=np.int64)
        self._rows = np.full(hnsw.get_max_elements(), DEAD, dtype=np.int64)
        self._make_table()

    def _make_table(self) -> None:
        self._table = np.full(2 << len(self._hashes).bit_length(), FREE, dtype=np.int32)
        _enter(self._table, self._hashes, 0, self._count)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, hashed: int) -> bool:
        return bool(_find(self._table, self._hashes, hashed) != FREE)

    def row(self, hashed: int) -> int:
        """Return the row that uses a node, or `DEAD` or `SEVERAL`."""
        return int(self._rows[_find(self._table, self._hashes, hashed)])

    def numbers(self, hashes: Ints) -> Ints:
        """Return the numbers of nodes that are here, (N,)."""
        return _find_all(self._table, self._hashes, hashes)

    def hashes(self) -> list[int]:
        """Return the hashes of all nodes that are not dead."""
        hashes: list[int] = self._hashes[: self._count][self._rows[: self._count] != DEAD].tolist()
        return hashes

    def embeddings(self, hashes: Sequence[int]) -> Floats:
        """Return the embeddings of nodes (N, D)."""
        return np.asarray(self.hnsw.get_items(self.numbers(np.array(hashes))), dtype=np.float32)

    def reserve(self, hashed: int, row: int) -> None:
        """Number a new node; it must be inserted before any other call but this."""
        number = self._count
        if number == len(self._rows):
            room = max(2 * number, FIRST_ROOM)
            self._hashes, self._rows = grown(self._hashes, room), grown(self._rows, room, DEAD)
            self._make_table()
        self._hashes[number], self._rows[number] = hashed, row
        _enter(self._table, self._hashes, number, number + 1)
        self._count += 1
        self.live += 1

    def insert(self, hashes: Sequence[int], embeddings: Floats) -> None:
        """Add reserved nodes; embeddings (N, D)."""
        if len(self._rows) > self.hnsw.get_max_elements():
            self.hnsw.resize_index(len(self._rows))
        self.hnsw.add_items(embeddings, self.numbers(np.array(hashes)))

    def give(self, hashed: int, row: int) -> None:
        """Note which row uses a node: one, `DEAD` or `SEVERAL`."""
        number = _find(self._table, self._hashes, hashed)
        if row == DEAD:
            self.hnsw.mark_deleted(number)
            self.live -= 1
        elif self._rows[number] == DEAD:
            self.hnsw.unmark_deleted(number)
            self.live += 1
        self._rows[number] = row

    def nearest(self, embedding: Floats, count: int) -> tuple[Ints, Ints]:
        """Return hashes and rows (count,) of nodes near `embedding` (D,).

        Raises:
            RuntimeError: it finds fewer.
        """
        self.hnsw.set_ef(max(MIN_EF, count))
        labels, _ = self.hnsw.knn_query(embedding[None, :], k=count)
        return self._hashes[labels[0]], self._rows[labels[0]]

    def restore(self, hashes: Ints, numbers: Ints) -> None:
        """Take over hashes and nodes (N,) of rows 0 to N - 1, of several that share a node the last one's."""
        self._hashes[numbers], self._rows[numbers] = hashes, np.arange(len(numbers))
        self.live = int((self._rows != DEAD).sum())
        self._make_table()


@njit("int64(int32[::1], int64[::1], int64)", cache=True, nogil=True)
def _find(table: Slots, hashes: Ints, hashed: int) -> int:
    """Return the number of a hash, `FREE` where it has none."""
    bucket = hashed & (len(table) - 1)
    while table[bucket] != FREE and hashes[table[bucket]] != hashed:
        bucket = (bucket + 1) & (len(table) - 1)
    return int(table[bucket])


@njit("int64[::1](int32[::1], int64[::1], int64[::1])", cache=True, nogil=True)
def _find_all(table: Slots, hashes: Ints, wanted: Ints) -> Ints:
    """Return the numbers of hashes (N,)."""
    found = np.empty(len(wanted), dtype=np.int64)
    for number in range(len(wanted)):
        found[number] = _find(table, hashes, wanted[number])
    return found


@njit("void(int32[::1], int64[::1], int64, int64)", cache=True, nogil=True)
def _enter(table: Slots, hashes: Ints, begin: int, end: int) -> None:
    """Enter numbers from `begin` up to `end`, but those without a hash; none of them is in the table yet."""
    for number in range(begin, end):
        if hashes[number]:
            bucket = hashes[number] & (len(table) - 1)
            while table[bucket] != FREE:
                bucket = (bucket + 1) & (len(table) - 1)
            table[bucket] = number


def empty_hnsw(dimension: int, room: int) -> "hnswlib.Index":
    """Return an index with room for so many nodes."""
    hnsw = new_hnsw(dimension)
    hnsw.init_index(room, ef_construction=EF_CONSTRUCTION, M=NEIGHBOURS)
    hnsw.set_num_threads(1)
    return hnsw


def new_hnsw(dimension: int) -> "hnswlib.Index":
    """Return an index that has to be loaded or initialised.

    Raises:
        UsageError: hnswlib is not installed.
    """
    try:
        import hnswlib
    except ImportError:
        raise UsageError("the index needs hnswlib: pip install 'headwater[serving]'") from None
    return hnswlib.Index(space="ip", dim=dimension)


def grown(array: Ints, room: int, filled: int = 0) -> Ints:
    """Return a longer copy; the rest is `filled`."""
    longer = np.full(room, filled)
    longer[: len(array)] = array
    return longer

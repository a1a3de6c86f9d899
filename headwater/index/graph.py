"""HNSW over the static dimensions, by maximum inner product."""

from collections.abc import Collection, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
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
DEAD_SHARE = 0.5
MIN_DEAD = 1024
MOVED = 4
"""Nodes that move to the successor for each one that is added."""
DEAD, SEVERAL = -1, -2
"""What stands in place of a row at a node that none has, and at one that several have."""
FREE = -1
"""A place of the hash table that leads to no node."""


class Graph:
    """An HNSW graph of rows that grows, and forgets what is removed. Not to be searched while it is changed.

    Rows of equal embedding share one node, found by the embedding's hash: items no bundle has learned yet differ by
    their topics alone, and thousands of equal points make HNSW miss most of what it should find.

    Nodes that nobody needs any more are dead, but still lead to others: taking their places, as hnswlib can, costs
    recall with each turnover. Once they are `DEAD_SHARE` of the living, a successor is built of the living alone, a
    few nodes with each that is added; until it is complete both are kept up.

    It works in hnswlib's inner product space. Turning inner products into distances with one more dimension,
    sqrt(M² - |x|²) (Bachrach et al., 2014), finds less on embeddings whose norms differ much: there that dimension
    outweighs all others. `tests/quality/test_index_recall.py` measures both.

    Args:
        dimension: D.
        room: Nodes for which there is room until it has to grow.
    """

    def __init__(self, dimension: int, room: int = 0) -> None:
        self._dimension = dimension
        self._nodes = _Nodes(_empty(dimension, max(room, FIRST_ROOM)))
        self._successor: _Nodes | None = None
        self._to_move: list[int] = []
        # The hash of each row, 0 where there is none, and the rows of each hash that several have, the newest last.
        self._hashes = np.zeros(max(room, FIRST_ROOM), dtype=np.int64)
        self._together: dict[int, dict[int, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nodes(self) -> int:
        """Return the number of different embeddings."""
        return self._nodes.living

    @property
    def size(self) -> int:
        """Return the number of nodes with the dead ones."""
        return len(self._nodes)

    def put(self, rows: Sequence[int], embeddings: Floats) -> None:
        """Insert or replace different rows; embeddings (N, D) float32."""
        fresh: dict[int, Floats] = {}
        for row, embedding in zip(rows, embeddings, strict=True):
            self.remove(row)
            hashed = _hash(embedding)
            if row >= len(self._hashes):
                self._hashes = _grown(self._hashes, max(2 * row, FIRST_ROOM))
            self._hashes[row] = hashed
            self._count += 1
            if hashed not in self._nodes:
                self._nodes.reserve(hashed, row)
                fresh[hashed] = embedding
            else:
                self._join(hashed, row)
        if fresh:
            self._nodes.insert(list(fresh), np.stack(list(fresh.values())))
            self._compact(fresh)

    def _join(self, hashed: int, row: int) -> None:
        """Give a row the node that is there."""
        former = self._nodes.row(hashed)
        if former == SEVERAL:
            self._together[hashed][row] = None
        elif former != DEAD:
            self._together[hashed] = {former: None, row: None}
            self._give(hashed, SEVERAL)
        else:
            self._give(hashed, row)
            if self._successor is not None and hashed not in self._successor:
                self._to_move.append(hashed)

    def _give(self, hashed: int, row: int) -> None:
        for nodes in (self._nodes, self._successor):
            if nodes is not None and hashed in nodes:
                nodes.give(hashed, row)

    def _compact(self, fresh: Collection[int]) -> None:
        """Build on at the successor, to which `fresh` nodes are added, too; begin one when it is time."""
        if self._successor is None:
            if self.size - self.nodes < max(MIN_DEAD, DEAD_SHARE * self.nodes):
                return
            self._successor = _Nodes(_empty(self._dimension, 2 * self.nodes))
            self._to_move = self._nodes.hashes()
        else:
            self._to_move += fresh
        moving = [self._to_move.pop() for _ in range(min((1 + MOVED) * len(fresh), len(self._to_move)))]
        rows = {hashed: self._nodes.row(hashed) for hashed in moving if hashed not in self._successor}
        wanted = [hashed for hashed, row in rows.items() if row != DEAD]
        if wanted:
            for hashed in wanted:
                self._successor.reserve(hashed, rows[hashed])
            self._successor.insert(wanted, self._nodes.embeddings(wanted))
        if not self._to_move:
            self._nodes, self._successor = self._successor, None

    def remove(self, row: int) -> None:
        """Forget a row; unknown ones are none."""
        hashed = int(self._hashes[row]) if row < len(self._hashes) else 0
        if not hashed:
            return
        self._hashes[row] = 0
        self._count -= 1
        together = self._together.get(hashed)
        if together is None:
            self._give(hashed, DEAD)
            return
        del together[row]
        if len(together) == 1:
            self._give(hashed, *self._together.pop(hashed))

    def move(self, row: int, to: int) -> None:
        """Call a row by another number, which no row has."""
        hashed = int(self._hashes[row])
        self._hashes[to], self._hashes[row] = hashed, 0
        together = self._together.get(hashed)
        if together is None:
            self._give(hashed, to)
        else:
            del together[row]
            together[to] = None

    def search(self, embedding: Floats, k: int) -> Ints:
        """Return at least k rows of about the largest inner products with `embedding` (D,), if it finds as many.

        Of very many rows with the same embedding the k newest are returned; one that moves or is loaded counts as new.
        """
        wanted = min(k, self.nodes)
        while wanted:
            try:
                hashes, rows = self._nodes.nearest(embedding, wanted)
            except RuntimeError:  # hnswlib's word for "found fewer than k"
                wanted //= 2
                continue
            return self._expanded(hashes, rows, k) if (rows == SEVERAL).any() else rows
        return np.empty(0, dtype=np.int64)

    def _expanded(self, hashes: Ints, rows: Ints, k: int) -> Ints:
        found: list[int] = []
        for hashed, row in zip(hashes.tolist(), rows.tolist(), strict=True):
            if len(found) >= k:
                break
            found += islice(reversed(self._together[hashed]), k) if row == SEVERAL else (row,)
        return np.array(found, dtype=np.int64)

    def save(self, path: Path) -> tuple[Ints, Ints]:
        """Write the graph and return hashes and nodes (N,) of its rows 0 to N - 1, which `load` needs beside it."""
        self._nodes.hnsw.save_index(str(path))
        hashes = self._hashes[: self._count]
        return hashes, self._nodes.numbers(hashes)

    def load(self, path: Path, hashes: Ints, nodes: Ints) -> None:
        """Become the saved graph of N rows."""
        hnsw = _new_index(self._dimension)
        hnsw.load_index(str(path))
        hnsw.set_num_threads(1)
        self._nodes = _Nodes(hnsw)
        self._nodes.restore(hashes, nodes)
        self._hashes, self._count = hashes, len(hashes)
        for row in np.flatnonzero(np.bincount(nodes)[nodes] > 1).tolist():
            self._together.setdefault(int(hashes[row]), {})[row] = None
        for hashed in self._together:
            self._nodes.give(hashed, SEVERAL)


class _Nodes:
    """The nodes of one HNSW index, numbered as they come, which is how hnswlib calls them.

    A hash table leads from hashes to numbers: a dictionary of a million takes twelve times as much memory.

    Args:
        hnsw: hnswlib's index.

    Attributes:
        living: How many are not dead.
    """

    def __init__(self, hnsw: "hnswlib.Index") -> None:
        self.hnsw = hnsw
        self.living = 0
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
        """Return whose node it is, or `DEAD` or `SEVERAL`."""
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
        """Number a new node, which is to be inserted before anything else is asked for."""
        number = self._count
        if number == len(self._rows):
            room = max(2 * number, FIRST_ROOM)
            self._hashes, self._rows = _grown(self._hashes, room), _grown(self._rows, room, DEAD)
            self._make_table()
        self._hashes[number], self._rows[number] = hashed, row
        _enter(self._table, self._hashes, number, number + 1)
        self._count += 1
        self.living += 1

    def insert(self, hashes: Sequence[int], embeddings: Floats) -> None:
        """Add reserved nodes; embeddings (N, D)."""
        if len(self._rows) > self.hnsw.get_max_elements():
            self.hnsw.resize_index(len(self._rows))
        self.hnsw.add_items(embeddings, self.numbers(np.array(hashes)))

    def give(self, hashed: int, row: int) -> None:
        """Give a node to a row, or to none, or to several."""
        number = _find(self._table, self._hashes, hashed)
        if row == DEAD:
            self.hnsw.mark_deleted(number)
            self.living -= 1
        elif self._rows[number] == DEAD:
            self.hnsw.unmark_deleted(number)
            self.living += 1
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
        """Take over hashes and nodes (N,) of rows 0 to N - 1, the last one's where several share a node."""
        self._hashes[numbers], self._rows[numbers] = hashes, np.arange(len(numbers))
        self.living = int((self._rows != DEAD).sum())
        self._make_table()


@njit("int64(int32[::1], int64[::1], int64)", cache=True, nogil=True)
def _find(table: Slots, hashes: Ints, hashed: int) -> int:
    """Return the number of a hash, `FREE` where it has none."""
    place = hashed & (len(table) - 1)
    while table[place] != FREE and hashes[table[place]] != hashed:
        place = (place + 1) & (len(table) - 1)
    return int(table[place])


@njit("int64[::1](int32[::1], int64[::1], int64[::1])", cache=True, nogil=True)
def _find_all(table: Slots, hashes: Ints, wanted: Ints) -> Ints:
    """Return the numbers of hashes (N,)."""
    found = np.empty(len(wanted), dtype=np.int64)
    for place in range(len(wanted)):
        found[place] = _find(table, hashes, wanted[place])
    return found


@njit("void(int32[::1], int64[::1], int64, int64)", cache=True, nogil=True)
def _enter(table: Slots, hashes: Ints, begin: int, end: int) -> None:
    """Enter numbers from `begin` up to `end`, but those without a hash; none of them is in the table yet."""
    for number in range(begin, end):
        if hashes[number]:
            place = hashes[number] & (len(table) - 1)
            while table[place] != FREE:
                place = (place + 1) & (len(table) - 1)
            table[place] = number


def _empty(dimension: int, room: int) -> "hnswlib.Index":
    index = _new_index(dimension)
    index.init_index(room, ef_construction=EF_CONSTRUCTION, M=NEIGHBOURS)
    index.set_num_threads(1)
    return index


def _new_index(dimension: int) -> "hnswlib.Index":
    try:
        import hnswlib
    except ImportError:
        raise UsageError("the index needs hnswlib: pip install 'headwater[serving]'") from None
    return hnswlib.Index(space="ip", dim=dimension)


def _hash(embedding: Floats) -> int:
    """Return a number above 0 that is the same for equal embeddings, in every process."""
    return int.from_bytes(blake2b(embedding.tobytes(), digest_size=8).digest(), "little") >> 1 or 1


def _grown(array: Ints, room: int, filled: int = 0) -> Ints:
    grown = np.full(room, filled)
    grown[: len(array)] = array
    return grown

"""HNSW over the static dimensions, by maximum inner product."""

from collections.abc import Collection, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headwater.index.graph_nodes import DEAD, FIRST_ROOM, SEVERAL, GraphNodes, empty_hnsw, grown, new_hnsw

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

DEAD_SHARE = 0.5
"""Dead nodes per live one above which a replacement graph is built."""
MIN_DEAD = 1024
MOVED = 4
"""Nodes that move to the replacement graph per node that is added."""


class Graph:
    """An HNSW graph of rows that grows, and forgets what is removed. Not to be searched while it is changed.

    Rows of equal embedding share one node, found by the embedding's hash: items no bundle has learned yet differ by
    their topics alone, and thousands of equal points make HNSW miss most of what it should find.

    Nodes that no row uses any more are dead, but still lead to others: taking their places, as hnswlib can, costs
    recall with each turnover. Once they are more than `DEAD_SHARE` of the live ones, a replacement graph is built of the live
    nodes alone, a few with each that is added; until it is complete both are updated.

    It works in hnswlib's inner product space. Turning inner products into distances with one more dimension,
    sqrt(M² - |x|²) (Bachrach et al., 2014), finds less on embeddings whose norms differ much: there that dimension
    outweighs all others. `tests/quality/test_index_recall.py` measures both.

    Args:
        dimension: D.
        room: Nodes for which there is room until it has to grow.
    """

    def __init__(self, dimension: int, room: int = 0) -> None:
        self._dimension = dimension
        self._nodes = GraphNodes(empty_hnsw(dimension, max(room, FIRST_ROOM)))
        self._replacement: GraphNodes | None = None
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
        return self._nodes.live

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
                self._hashes = grown(self._hashes, max(2 * row, FIRST_ROOM))
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
        """Let a row use an existing node."""
        former = self._nodes.row(hashed)
        if former == SEVERAL:
            self._together[hashed][row] = None
        elif former != DEAD:
            self._together[hashed] = {former: None, row: None}
            self._give(hashed, SEVERAL)
        else:
            self._give(hashed, row)
            if self._replacement is not None and hashed not in self._replacement:
                self._to_move.append(hashed)

    def _give(self, hashed: int, row: int) -> None:
        for nodes in (self._nodes, self._replacement):
            if nodes is not None and hashed in nodes:
                nodes.give(hashed, row)

    def _compact(self, fresh: Collection[int]) -> None:
        """Continue the replacement graph, to which `fresh` nodes are added, too; begin one when it is time."""
        if self._replacement is None:
            if self.size - self.nodes < max(MIN_DEAD, DEAD_SHARE * self.nodes):
                return
            self._replacement = GraphNodes(empty_hnsw(self._dimension, 2 * self.nodes))
            self._to_move = self._nodes.hashes()
        else:
            self._to_move += fresh
        moving = [self._to_move.pop() for _ in range(min((1 + MOVED) * len(fresh), len(self._to_move)))]
        rows = {hashed: self._nodes.row(hashed) for hashed in moving if hashed not in self._replacement}
        wanted = [hashed for hashed, row in rows.items() if row != DEAD]
        if wanted:
            for hashed in wanted:
                self._replacement.reserve(hashed, rows[hashed])
            self._replacement.insert(wanted, self._nodes.embeddings(wanted))
        if not self._to_move:
            self._nodes, self._replacement = self._replacement, None

    def remove(self, row: int) -> None:
        """Forget a row; unknown rows are ignored."""
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
        """Renumber a row; no row has the new number."""
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
            except RuntimeError:  # hnswlib found fewer than k
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
        hnsw = new_hnsw(self._dimension)
        hnsw.load_index(str(path))
        hnsw.set_num_threads(1)
        self._nodes = GraphNodes(hnsw)
        self._nodes.restore(hashes, nodes)
        self._hashes, self._count = hashes, len(hashes)
        for row in np.flatnonzero(np.bincount(nodes)[nodes] > 1).tolist():
            self._together.setdefault(int(hashes[row]), {})[row] = None
        for hashed in self._together:
            self._nodes.give(hashed, SEVERAL)


def _hash(embedding: Floats) -> int:
    """Return a number above 0 that is the same for equal embeddings, in every process."""
    return int.from_bytes(blake2b(embedding.tobytes(), digest_size=8).digest(), "little") >> 1 or 1

"""HNSW over the static dimensions, by maximum inner product."""

from collections.abc import Collection, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headwater.errors import UsageError

if TYPE_CHECKING:
    import hnswlib

FIRST_ROOM = 1024
NEIGHBOURS = 16
EF_CONSTRUCTION = 200
MIN_EF = 800
DEAD_SHARE = 0.5
MIN_DEAD = 1024
MOVED = 4
"""Nodes that move to the successor for each one that is added."""


class Graph:
    """An HNSW graph that grows, and forgets what is removed. Not to be searched while it is changed.

    Items of equal embedding share one node, whose label is the embedding's hash: items no bundle has learned yet
    differ by their topics alone, and thousands of equal points make HNSW miss most of what it should find.

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
        self._index = _empty(dimension, max(room, FIRST_ROOM))
        self._successor: hnswlib.Index | None = None
        self._moved: set[int] = set()
        self._to_move: list[int] = []
        self._labels: dict[str, int] = {}
        self._members: dict[int, str | list[str]] = {}  # nearly always one, and a list of one is larger than its item

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def nodes(self) -> int:
        """Return the number of different embeddings."""
        return len(self._members)

    @property
    def size(self) -> int:
        """Return the number of nodes with the dead ones."""
        return int(self._index.get_current_count())

    def put(self, item_ids: Sequence[str], embeddings: npt.NDArray[np.float32]) -> None:
        """Insert or replace items; embeddings (N, D) float32."""
        fresh: dict[int, npt.NDArray[np.float32]] = {}
        for item_id, embedding in zip(item_ids, embeddings, strict=True):
            self.remove(item_id)
            label = _label(embedding)
            self._join(item_id, label)
            if self._members[label] == item_id and not self._revived(label):
                fresh[label] = embedding
        if fresh:
            labels = np.fromiter(fresh, dtype=np.uint64, count=len(fresh))
            _add(self._index, labels, np.stack(list(fresh.values())))
            self._compact(fresh)

    def _join(self, item_id: str, label: int) -> None:
        self._labels[item_id] = label
        members = self._members.setdefault(label, item_id)
        if isinstance(members, list):
            members.append(item_id)
        elif members != item_id:
            self._members[label] = [members, item_id]

    def _revived(self, label: int) -> bool:
        """Take back a dead node; the same label is the same embedding."""
        try:
            self._index.unmark_deleted(label)
        except RuntimeError:  # hnswlib's word for "no such label"
            return False
        if self._successor and label in self._moved:
            self._successor.unmark_deleted(label)
        elif self._successor:
            self._to_move.append(label)
        return True

    def _compact(self, fresh: Collection[int]) -> None:
        """Build on at the successor, to which `fresh` nodes are added, too; begin one when it is time."""
        if self._successor is None:
            if self.size - self.nodes < max(MIN_DEAD, DEAD_SHARE * len(self._members)):
                return
            self._successor = _empty(self._dimension, 2 * len(self._members))
            self._to_move = list(self._members)
        self._to_move += fresh
        moving = [self._to_move.pop() for _ in range(min((1 + MOVED) * len(fresh), len(self._to_move)))]
        labels = [label for label in dict.fromkeys(moving) if label in self._members and label not in self._moved]
        if labels:
            _add(self._successor, np.array(labels, dtype=np.uint64), self._index.get_items(labels))
            self._moved.update(labels)
        if not self._to_move:
            self._index, self._successor, self._moved = self._successor, None, set()

    def remove(self, item_id: str) -> None:
        """Forget an item; unknown ones are none."""
        label = self._labels.pop(item_id, None)
        if label is None:
            return
        members = self._members[label]
        if isinstance(members, list):
            members.remove(item_id)
        if not members or isinstance(members, str):
            del self._members[label]
            self._index.mark_deleted(label)
            if self._successor and label in self._moved:
                self._successor.mark_deleted(label)

    def search(self, embedding: npt.NDArray[np.float32], k: int) -> list[str]:
        """Return at least k items of about the largest inner products with `embedding` (D,), if it finds as many.

        Of very many items with the same embedding the k inserted last are returned.
        """
        nodes = min(k, len(self._members))
        self._index.set_ef(max(MIN_EF, nodes))
        while nodes:
            try:
                labels, _ = self._index.knn_query(embedding[None, :], k=nodes)
            except RuntimeError:  # hnswlib's word for "found fewer than k"
                nodes //= 2
                continue
            return self._expanded(labels[0].tolist(), k)
        return []

    def _expanded(self, labels: list[int], k: int) -> list[str]:
        found: list[str] = []
        for label in labels:
            if len(found) >= k:
                break
            members = self._members[label]
            found += members[-k:] if isinstance(members, list) else (members,)
        return found

    def save(self, path: Path, item_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
        """Write the graph and return the labels (N,) of its items, which `load` needs beside it."""
        self._index.save_index(str(path))
        return np.fromiter(map(self._labels.__getitem__, item_ids), dtype=np.uint64, count=len(item_ids))

    def load(self, path: Path, item_ids: Sequence[str], labels: npt.NDArray[np.uint64]) -> None:
        """Become the saved graph of these items."""
        self._index = _new_index(self._dimension)
        self._index.load_index(str(path))
        self._index.set_num_threads(1)
        numbers = labels.tolist()
        self._labels = dict(zip(item_ids, numbers, strict=True))
        self._members = dict(zip(numbers, item_ids, strict=True))
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        together: dict[int, list[str]] = {}
        for place in np.flatnonzero(counts[inverse] > 1).tolist():
            together.setdefault(numbers[place], []).append(item_ids[place])
        self._members.update(together)


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


def _add(index: "hnswlib.Index", labels: npt.NDArray[np.uint64], embeddings: npt.NDArray[np.float32]) -> None:
    """Add nodes of new labels."""
    needed = index.get_current_count() + len(labels)
    if needed > index.get_max_elements():
        index.resize_index(max(2 * index.get_max_elements(), needed))
    index.add_items(embeddings, labels)


def _label(embedding: npt.NDArray[np.float32]) -> int:
    """Return a label that is the same for equal embeddings, in every process."""
    return int.from_bytes(blake2b(embedding.tobytes(), digest_size=8).digest(), "little") >> 1

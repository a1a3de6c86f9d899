"""HNSW over the static dimensions, by maximum inner product."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headwater.errors import UsageError

FIRST_CAPACITY = 1024
NEIGHBOURS = 16
EF_CONSTRUCTION = 200
MIN_EF = 200


class Graph:
    """An HNSW graph that grows, and forgets what is removed. Not to be searched while it is changed.

    Items of equal embedding share one node, whose label is the embedding's hash: items no bundle has learned yet
    differ by their topics alone, and thousands of equal points make HNSW miss most of what it should find.

    It works in hnswlib's inner product space. Turning inner products into distances with one more dimension,
    sqrt(M² - |x|²) (Bachrach et al., 2014), finds less on embeddings whose norms differ much: there that dimension
    outweighs all others. `tests/quality/test_index_recall.py` measures both.

    Args:
        dimension: D.
    """

    def __init__(self, dimension: int) -> None:
        try:
            import hnswlib
        except ImportError:
            raise UsageError("the index needs hnswlib: pip install 'headwater[serving]'") from None
        self._dimension = dimension
        self._index: hnswlib.Index = hnswlib.Index(space="ip", dim=dimension)
        self._index.init_index(
            FIRST_CAPACITY, ef_construction=EF_CONSTRUCTION, M=NEIGHBOURS, allow_replace_deleted=True
        )
        self._index.set_num_threads(1)
        self._labels: dict[str, int] = {}
        self._members: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def nodes(self) -> int:
        """Return the number of different embeddings."""
        return len(self._members)

    def put(self, item_ids: Sequence[str], embeddings: npt.NDArray[np.float32]) -> None:
        """Insert or replace items; embeddings (N, D) float32."""
        fresh: dict[int, npt.NDArray[np.float32]] = {}
        for item_id, embedding in zip(item_ids, embeddings, strict=True):
            self.remove(item_id)
            label = _label(embedding)
            self._labels[item_id] = label
            members = self._members.setdefault(label, [])
            members.append(item_id)
            if len(members) == 1 and not self._revived(label):
                fresh[label] = embedding
        if len(self._members) > self._index.get_max_elements():
            self._index.resize_index(max(2 * self._index.get_max_elements(), len(self._members)))
        if fresh:
            labels = np.fromiter(fresh, dtype=np.uint64, count=len(fresh))
            self._index.add_items(np.stack(list(fresh.values())), labels, replace_deleted=True)

    def _revived(self, label: int) -> bool:
        """Take back a node that was deleted and whose place nobody took; the same label is the same embedding."""
        try:
            self._index.unmark_deleted(label)
        except RuntimeError:  # hnswlib's word for "no such label"
            return False
        return True

    def remove(self, item_id: str) -> None:
        """Forget an item; unknown ones are none."""
        label = self._labels.pop(item_id, None)
        if label is None:
            return
        members = self._members[label]
        members.remove(item_id)
        if not members:
            del self._members[label]
            self._index.mark_deleted(label)

    def search(self, embedding: npt.NDArray[np.float32], k: int) -> list[str]:
        """Return at least k items of about the largest inner products with `embedding` (D,), if it finds as many.

        Of very many items with the same embedding the k inserted last are returned.
        """
        nodes = min(k, len(self._members))
        self._index.set_ef(max(MIN_EF, 4 * nodes))
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
            found += self._members[label][-k:]
        return found

    def save(self, path: Path) -> dict[str, Any]:
        """Write the graph and return what `load` needs beside it."""
        self._index.save_index(str(path))
        return {"labels": self._labels, "capacity": self._index.get_max_elements()}

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Become the saved graph."""
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=self._dimension)
        self._index.load_index(str(path), max_elements=state["capacity"], allow_replace_deleted=True)
        self._index.set_num_threads(1)
        self._labels = dict(state["labels"])
        self._members = {}
        for item_id, label in self._labels.items():
            self._members.setdefault(label, []).append(item_id)


def _label(embedding: npt.NDArray[np.float32]) -> int:
    """Return a label that is the same for equal embeddings, in every process."""
    return int.from_bytes(blake2b(embedding.tobytes(), digest_size=8).digest(), "little") >> 1

"""HNSW over the static dimensions, by maximum inner product."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headwater.errors import UsageError

if TYPE_CHECKING:
    pass

FIRST_CAPACITY = 1024
NEIGHBOURS = 16
EF_CONSTRUCTION = 100
MIN_EF = 64


class Graph:
    """An HNSW graph that grows, and forgets what is removed. Not to be searched while it is changed.

    hnswlib's inner product space loses recall on vectors of unequal norm. Here each embedding x gets one
    more dimension, sqrt(M² - |x|²), and the query 0: then the nearest by L2 is the largest inner product
    (Bachrach et al., 2014).

    Args:
        dimension: D.
        max_norm: M, at least the largest norm expected; longer embeddings are ranked as if they were M long.
    """

    def __init__(self, dimension: int, max_norm: float) -> None:
        try:
            import hnswlib
        except ImportError:
            raise UsageError("the index needs hnswlib: pip install 'headwater[serving]'") from None
        self._dimension = dimension
        self._max_norm = max_norm
        self._index: hnswlib.Index = hnswlib.Index(space="l2", dim=dimension + 1)
        self._index.init_index(
            FIRST_CAPACITY, ef_construction=EF_CONSTRUCTION, M=NEIGHBOURS, allow_replace_deleted=True
        )
        self._index.set_num_threads(1)
        self._ids: dict[int, str] = {}
        self._labels: dict[str, int] = {}
        self._next_label = 0

    def __len__(self) -> int:
        return len(self._labels)

    def put(self, item_ids: Sequence[str], embeddings: npt.NDArray[np.float32]) -> None:
        """Insert or replace items; embeddings (N, D) float32."""
        for item_id in item_ids:
            self.remove(item_id)
        labels = np.arange(self._next_label, self._next_label + len(item_ids))
        self._next_label += len(item_ids)
        needed = len(self._labels) + len(item_ids)
        if needed > self._index.get_max_elements():
            self._index.resize_index(max(2 * self._index.get_max_elements(), needed))
        self._index.add_items(self._augmented(embeddings), labels, replace_deleted=True)
        for item_id, label in zip(item_ids, labels.tolist(), strict=True):
            self._ids[label] = item_id
            self._labels[item_id] = label

    def remove(self, item_id: str) -> None:
        """Forget an item; unknown ones are none."""
        label = self._labels.pop(item_id, None)
        if label is not None:
            del self._ids[label]
            self._index.mark_deleted(label)

    def search(self, embedding: npt.NDArray[np.float32], k: int) -> list[str]:
        """Return about the k items of largest inner product with `embedding` (D,); fewer where it finds fewer."""
        query = np.append(embedding, np.float32(0.0))[None, :]
        k = min(k, len(self))
        self._index.set_ef(max(MIN_EF, 2 * k))
        while k:
            try:
                labels, _ = self._index.knn_query(query, k=k)
            except RuntimeError:  # hnswlib's word for "found fewer than k"
                k //= 2
                continue
            return [self._ids[label] for label in labels[0].tolist()]
        return []

    def _augmented(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        squared = np.einsum("nd,nd->n", embeddings, embeddings)
        rest = np.sqrt(np.maximum(self._max_norm**2 - squared, 0.0))
        augmented: npt.NDArray[np.float32] = np.column_stack((embeddings, rest)).astype(np.float32)
        return augmented

    def save(self, path: Path) -> dict[str, Any]:
        """Write the graph and return what `load` needs beside it."""
        self._index.save_index(str(path))
        return {"labels": self._labels, "next_label": self._next_label, "capacity": self._index.get_max_elements()}

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Become the saved graph."""
        import hnswlib

        self._index = hnswlib.Index(space="l2", dim=self._dimension + 1)
        self._index.load_index(str(path), max_elements=state["capacity"], allow_replace_deleted=True)
        self._index.set_num_threads(1)
        self._labels = dict(state["labels"])
        self._ids = {label: item_id for item_id, label in self._labels.items()}
        self._next_label = state["next_label"]

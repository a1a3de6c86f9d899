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
EF_CONSTRUCTION = 200
MIN_EF = 100


class Graph:
    """An HNSW graph that grows, and forgets what is removed. Not to be searched while it is changed.

    It works in hnswlib's inner product space. Turning inner products into distances with one more dimension,
    sqrt(M² - |x|²) (Bachrach et al., 2014), finds less on embeddings whose norms differ much: there that dimension
    outweighs all others. `tests/quality/test_index_recall.py` measures it.

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
        self._index.add_items(embeddings, labels, replace_deleted=True)
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
        k = min(k, len(self))
        self._index.set_ef(max(MIN_EF, 4 * k))
        while k:
            try:
                labels, _ = self._index.knn_query(embedding[None, :], k=k)
            except RuntimeError:  # hnswlib's word for "found fewer than k"
                k //= 2
                continue
            return [self._ids[label] for label in labels[0].tolist()]
        return []

    def save(self, path: Path) -> dict[str, Any]:
        """Write the graph and return what `load` needs beside it."""
        self._index.save_index(str(path))
        return {"labels": self._labels, "next_label": self._next_label, "capacity": self._index.get_max_elements()}

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Become the saved graph."""
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=self._dimension)
        self._index.load_index(str(path), max_elements=state["capacity"], allow_replace_deleted=True)
        self._index.set_num_threads(1)
        self._labels = dict(state["labels"])
        self._ids = {label: item_id for item_id, label in self._labels.items()}
        self._next_label = state["next_label"]

"""Synthetic items for the index benchmarks.

Embeddings are clustered, norms unequal; a third of the items share embeddings, as items no bundle has learned yet do.
"""

import os
import time
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import numpy.typing as npt

from headwater.durations import DAY_MS
from headwater.features import STREAMING
from headwater.index import ItemIndex
from headwater.index.graph_nodes import EF_CONSTRUCTION, NEIGHBOURS
from headwater.item_embedding import ItemEmbedding

DIMENSION = 64
CLUSTERS = 300
K = 50
NOW_MS = 1_700_000_000_000
SLICE = 256
TIE = 1e-4
Embeddings = npt.NDArray[np.float32]


def make_items(count: int, random: np.random.Generator) -> tuple[list[ItemEmbedding], Embeddings]:
    """Return items of Zipf-sized topics `t0`, `t1` … and user embeddings to search with, (200, D + STREAMING)."""
    centres = random.normal(size=(CLUSTERS, DIMENSION))
    cluster = zipf_clusters(count, random)
    looks = 0.4 * random.normal(size=(count, DIMENSION)) * (random.random((count, 1)) > 1 / 3)
    norms = random.lognormal(0, 0.2, size=(CLUSTERS, 1))[cluster]
    embeddings = ((centres[cluster] + looks) * norms).astype(np.float32)
    ages_ms = random.integers(0, 30 * DAY_MS, size=count)
    items = [
        ItemEmbedding(f"item-{number}", (f"t{cluster[number]}",), NOW_MS - int(ages_ms[number]), embeddings[number])
        for number in range(count)
    ]
    static = centres[random.choice(CLUSTERS, size=200)] + 0.4 * random.normal(size=(200, DIMENSION))
    return items, np.hstack((static, np.zeros((200, STREAMING)))).astype(np.float32)


def zipf_clusters(count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the cluster of each of so many items, (N,); the n-th cluster has 1/n of the first one's items."""
    share = 1 / np.arange(1, CLUSTERS + 1)
    return random.choice(CLUSTERS, size=count, p=share / share.sum())


def built(items: list[ItemEmbedding]) -> tuple[ItemIndex, float]:
    """Return an index of the items and how many it took in a second, in slices as a server inserts them, cells and all."""
    index, started = ItemIndex(DIMENSION), time.perf_counter()
    for start in range(0, len(items), SLICE):
        index.upsert(items[start : start + SLICE])
        index.learn_cells()
    return index, len(items) / (time.perf_counter() - started)


def plain_hnswlib(capacity: int, dimension: int = DIMENSION, **options: bool) -> Any:
    """Return an empty index of hnswlib's own, as the graph has them, for one thread."""
    index = hnswlib.Index(space="ip", dim=dimension)
    index.init_index(capacity, ef_construction=EF_CONSTRUCTION, M=NEIGHBOURS, **options)
    index.set_num_threads(1)
    return index


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

"""HNSW against exact search, on embeddings of very unequal norm and on many equal ones."""

import numpy as np
import numpy.typing as npt

from headwater.index.graph import Graph

DIMENSION = 32
ITEMS = 5_000
QUERIES = 100
K = 50
TIE = 1e-4


def graph_recall(embeddings: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> float:
    """Return index_recall@K; equal scores count as found."""
    graph = Graph(embeddings.shape[1])
    graph.put(range(len(embeddings)), embeddings)
    found = 0
    for scores, query in zip(queries @ embeddings.T, queries, strict=True):
        bar = np.partition(scores, -K)[-K]
        best = np.sort(scores[graph.search(query, K)])[-K:]
        found += sum(score >= bar - TIE for score in best)
    return found / (QUERIES * K)


def test_unequal_norms() -> None:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(ITEMS, DIMENSION)) * random.lognormal(0, 0.7, size=(ITEMS, 1))
    queries = random.normal(size=(QUERIES, DIMENSION))
    assert graph_recall(embeddings.astype(np.float32), queries.astype(np.float32)) >= 0.95


def test_items_that_no_bundle_has_learned_yet_share_embeddings() -> None:
    random = np.random.default_rng(0)
    distinct = random.normal(size=(ITEMS // 50, DIMENSION)).astype(np.float32)
    queries = random.normal(size=(QUERIES, DIMENSION)).astype(np.float32)
    assert graph_recall(distinct[random.integers(len(distinct), size=ITEMS)], queries) >= 0.99

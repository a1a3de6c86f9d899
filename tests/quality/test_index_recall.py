"""HNSW against exact search, on embeddings of very unequal norm."""

import numpy as np

from headwater.index.graph import Graph

DIMENSION = 32
ITEMS = 5_000
K = 50


def test_graph_recall_on_unequal_norms() -> None:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(ITEMS, DIMENSION)) * random.lognormal(0, 0.7, size=(ITEMS, 1))
    embeddings = embeddings.astype(np.float32)
    graph = Graph(DIMENSION)
    graph.put([str(number) for number in range(ITEMS)], embeddings)
    found = 0
    for query in random.normal(size=(100, DIMENSION)).astype(np.float32):
        exact = np.argsort(-(embeddings @ query))[:K]
        found += len({str(number) for number in exact} & set(graph.search(query, K)))
    assert found / (100 * K) >= 0.95

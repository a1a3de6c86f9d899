"""A generation's checks inside a running server."""

import asyncio

import numpy as np

from headwater.index import ItemIndex
from headwater.verification import MIN_COVERAGE, MIN_INDEX_RECALL, Check, VerificationReport, at_least
from serving.state import State

RECALL_K = 50
RECALL_QUERIES = 50
SETTLE_S = 10.0
POLL_S = 0.05


async def verify(state: State, version: str) -> VerificationReport:
    """Return the report on a generation that this server holds, once the follower caught up with it.

    Raises:
        UnknownGeneration: this server does not hold it.
    """
    await state.held.poll()
    pair = state.held.pair(version)
    size = await state.store.catalogue_size()
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while len(pair.index) < size and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(POLL_S)
    dimension = pair.bundle.manifest.dimension
    return VerificationReport(
        version=version,
        checks=[
            Check(
                name="dimension",
                passed=pair.index.dimension == dimension,
                measured=float(pair.index.dimension),
                required=str(dimension),
            ),
            at_least("coverage of the live items", len(pair.index) / max(size, 1), MIN_COVERAGE),
            at_least(f"index_recall@{RECALL_K}", await index_recall(pair.index), MIN_INDEX_RECALL),
        ],
    )


async def index_recall(index: ItemIndex, queries: int = RECALL_QUERIES, k: int = RECALL_K) -> float:
    """Return the share of the exact top k by static dimensions that the graph finds, over sampled items as queries."""
    embeddings = index.everything.embeddings()
    if not len(embeddings):
        return 0.0
    k = min(k, len(embeddings))
    random = np.random.default_rng(0)
    found = 0
    for row in random.integers(len(embeddings), size=queries):
        scores = embeddings @ embeddings[row]
        bar = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = [index.everything.rows[item_id] for item_id in index.graph.search(embeddings[row], k)]
        found += int((scores[rows] >= bar - 1e-6).sum())
        await asyncio.sleep(0)
        embeddings = index.everything.embeddings()
    return min(1.0, found / (queries * k))

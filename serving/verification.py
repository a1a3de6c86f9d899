"""A generation's checks inside a running server."""

import asyncio

import numpy as np

from headwater.errors import ServiceUnavailable
from headwater.features import STREAMING
from headwater.index import ItemIndex
from headwater.verification import MIN_COVERAGE, MIN_INDEX_RECALL, Check, VerificationReport, at_least
from serving.state import State

RECALL_K = 50
RECALL_QUERIES = 50
PAUSE_S = 0.02
"""Pause between exact searches, so that the queries that each of them delays can be answered."""
SETTLE_S = 10.0
PATIENCE_S = 60.0
POLL_S = 0.05
SCORE_TOLERANCE = 1e-4


async def verify(state: State, version: str) -> VerificationReport:
    """Return the report on a generation that this server has loaded, once the follower has caught up with it.

    Raises:
        UnknownGeneration: this server has not loaded it.
        ServiceUnavailable: it is still growing; ask again.
    """
    await state.loaded.poll()
    pair = state.loaded.pair(version)
    size = await state.store.catalogue_size()
    await _settled(pair.index, size)
    await state.followed.learn_cells()
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
            *[
                at_least(
                    f"index_recall@{RECALL_K}" + (f" in {topic}" if topic else ""),
                    await index_recall(pair.index, state.retrieval.clock.now_ms(), topic),
                    MIN_INDEX_RECALL,
                )
                for topic in (None, *pair.index.large_topics()[:1])
            ],
        ],
    )


async def _settled(index: ItemIndex, size: int) -> None:
    """Return once the index holds `size` items, or has not grown for `SETTLE_S`."""
    clock = asyncio.get_running_loop().time
    seen, since, deadline = len(index), clock(), clock() + PATIENCE_S
    while len(index) < size and clock() - since < SETTLE_S:
        if clock() > deadline:
            raise ServiceUnavailable(f"{len(index)} of {size} items are here so far; verify again")
        await asyncio.sleep(POLL_S)
        if len(index) > seen:
            seen, since = len(index), clock()


async def index_recall(
    index: ItemIndex, now_ms: int, topic: str | None = None, queries: int = RECALL_QUERIES, k: int = RECALL_K
) -> float:
    """Return the share of the exact top k that a search inside a topic, or without one, finds, as it is served.

    Sampled items stand in for users; equal scores count as found.
    """
    if not len(index):
        return 0.0
    found = wanted = 0
    random = np.random.default_rng(0)
    for _ in range(queries):
        embeddings = index.embeddings(topic)
        k = min(k, len(embeddings))
        item = embeddings[random.integers(len(embeddings))]
        bar = np.partition(embeddings @ item, len(embeddings) - k)[len(embeddings) - k]
        query = np.concatenate((item, np.zeros(STREAMING, dtype=np.float32)))[None, :]
        (candidates,) = index.search(query, k, topic, now_ms)
        found += sum(score >= bar - SCORE_TOLERANCE for score in candidates.scores)
        wanted += k
        await asyncio.sleep(PAUSE_S)
    return found / wanted

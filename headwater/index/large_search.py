"""Search of a block too large to score every row: rows near the user, active rows, and promising topics."""

from collections.abc import Collection, Iterator, Mapping
from itertools import islice

import numpy as np
import numpy.typing as npt

from headwater.features import STREAMING
from headwater.index.added_scores import AddedScores
from headwater.index.block import Block
from headwater.index.candidates import Candidates
from headwater.index.exact_search import rows_of, search_exactly
from headwater.index.graph import Graph
from headwater.index.hits import BlockHits, RowHits, united
from headwater.index.top import NEVER, top
from headwater.index.topic_bounds import TopicBounds

CELL_CANDIDATES = 4
"""Best rows by static score that cells are read for, per requested candidate."""
CELL_RESCORED = 16
"""Rows from cells that are scored with streaming features, per requested candidate."""
GRAPH_RESCORED = 24
"""Rows from the graph that are scored with streaming features, per requested candidate."""
BOUNDS_SHARE = 0.005
"""Share of the items that may change before the topics' bounds are computed again."""
PROBED_ITEMS = 20_000
"""Items of topics searched beside the graph, in all."""
PROBED_TOPICS = 16
"""Topics searched beside the graph, at most."""

Embeddings = npt.NDArray[np.float32]


class LargeSearch:
    """Searches an index' large blocks.

    Args:
        everything: All items.
        blocks: Those of each topic, as they are at any time.
        graph: Of everything.

    Attributes:
        changes: Items inserted, changed or deleted since the topics' bounds were computed.
    """

    def __init__(self, everything: Block, blocks: Mapping[str, Block], graph: Graph) -> None:
        self._everything, self._blocks, self._graph = everything, blocks, graph
        self._bounds: TopicBounds | None = None
        self.changes = 0

    def search(
        self,
        block: Block,
        active: npt.NDArray[np.int64],
        embedding: Embeddings,
        k: int,
        now_ms: int,
        excluded: Collection[str],
        added: AddedScores | None,
    ) -> Candidates:
        """Return the k best of a block for one user embedding.

        Args:
            active: Rows of the block that are scored in any case.
            added: What is added to the scores of single items.
        """
        found = [(block, self._search_near(block, active, embedding, k, now_ms, excluded, added))]
        if block is self._everything:  # a graph stays in one cluster where several are good
            for topic in self._promising(embedding[:-STREAMING]):
                found.append(
                    (topic, search_exactly(topic, embedding[None, :], k, now_ms, None, [excluded], added).of_answer(0))
                )
        return united(found, k)

    def _promising(self, embedding: Embeddings) -> Iterator[Block]:
        """Yield the blocks of promising topics, with at most `PROBED_ITEMS` in all."""
        if not self._blocks:
            return
        if self._bounds is None or self.changes > BOUNDS_SHARE * len(self._everything):
            self._bounds, self.changes = TopicBounds(self._blocks), 0
        left = PROBED_ITEMS
        known = filter(None, map(self._blocks.get, self._bounds.promising(embedding)))
        for block in islice(known, PROBED_TOPICS):
            if len(block) <= left:
                left -= len(block)
                yield block

    def _search_near(
        self,
        block: Block,
        active: npt.NDArray[np.int64],
        embedding: Embeddings,
        k: int,
        now_ms: int,
        excluded: Collection[str],
        added: AddedScores | None,
    ) -> RowHits:
        """Return the best of the rows near the user by static score, the active ones, and those with added scores."""
        out = rows_of(block, excluded)
        parts = [self._near(block, embedding[:-STREAMING], k, len(out)), active]
        more = added.within(block) if added else None
        if more:
            parts.append(more.rows)
        chosen = np.sort(np.concatenate(parts))
        chosen = chosen[np.diff(chosen, prepend=-1) > 0]
        if len(chosen) < min(k + len(out), len(block)):
            return search_exactly(block, embedding[None, :], k, now_ms, None, [excluded], added).of_answer(0)
        scores = block.scores_of(chosen, embedding, now_ms)
        if more:
            scores[np.searchsorted(chosen, more.rows)] += more.scores
        scores[np.isin(chosen, out)] = NEVER
        positions, best = BlockHits(*top(scores[None, :], k)).of_answer(0)
        return RowHits(chosen[positions], best)

    def _near(self, block: Block, embedding: Embeddings, k: int, excluded: int) -> npt.NDArray[np.int64]:
        if block.cells is None:
            return self._graph.search(embedding, GRAPH_RESCORED * k + excluded)
        found, rescored = CELL_CANDIDATES * k + excluded, CELL_RESCORED * k + excluded
        return block.cells.near(len(block), np.ascontiguousarray(embedding), found, rescored)

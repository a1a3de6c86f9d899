"""Search of a block that is too large to score every row: of what is near the user, what is active, and promising topics."""

from collections.abc import Collection, Iterator, Mapping
from itertools import islice

import numpy as np
import numpy.typing as npt

from headwater.features import STREAMING
from headwater.index.added_scores import AddedScores
from headwater.index.block import Block
from headwater.index.candidates import Candidates
from headwater.index.exact_search import rows_of, search_exactly
from headwater.index.found import Best, Found, united
from headwater.index.graph import Graph
from headwater.index.outlook import Outlook
from headwater.index.top import NEVER, top

OVERFETCH, RESCORED, FROM_GRAPH = 4, 16, 24
"""Items near a user for each candidate: as many are looked for in cells, so many of the nearest are scored with what streams,
and of those from the graph so many."""
OUTLOOK_SHARE = 0.005
"""Of the items that may come, change or go until it is told anew where topics lie."""
PROBED_ITEMS = 20_000
PROBED_TOPICS = 16
"""Topics that are looked at for an answer about everything, where the graph is searched, and their items in all."""

Embeddings = npt.NDArray[np.float32]


class LargeSearch:
    """Searches an index' large blocks.

    Args:
        everything: All items.
        blocks: Those of each topic, as they are at any time.
        graph: Of everything.

    Attributes:
        changes: Items that came, changed or went since it was told where topics lie.
    """

    def __init__(self, everything: Block, blocks: Mapping[str, Block], graph: Graph) -> None:
        self._everything, self._blocks, self._graph = everything, blocks, graph
        self._outlook: Outlook | None = None
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
                    (topic, search_exactly(topic, embedding[None, :], k, now_ms, None, [excluded], added).best(0))
                )
        return united(found, k)

    def _promising(self, embedding: Embeddings) -> Iterator[Block]:
        """Yield the blocks of promising topics, with at most `PROBED_ITEMS` in all."""
        if not self._blocks:
            return
        if self._outlook is None or self.changes > OUTLOOK_SHARE * len(self._everything):
            self._outlook, self.changes = Outlook(self._blocks), 0
        left = PROBED_ITEMS
        known = filter(None, map(self._blocks.get, self._outlook.promising(embedding)))
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
    ) -> Best:
        """Score what the static dimensions say is near, what is active, and what has added scores."""
        out = rows_of(block, excluded)
        parts = [self._near(block, embedding[:-STREAMING], k, len(out)), active]
        more = added.within(block) if added else None
        if more:
            parts.append(more.rows)
        chosen = np.sort(np.concatenate(parts))
        chosen = chosen[np.diff(chosen, prepend=-1) > 0]
        if len(chosen) < min(k + len(out), len(block)):
            return search_exactly(block, embedding[None, :], k, now_ms, None, [excluded], added).best(0)
        scores = block.scores_of(chosen, embedding, now_ms)
        if more:
            scores[np.searchsorted(chosen, more.rows)] += more.scores
        scores[np.isin(chosen, out)] = NEVER
        places, best = Found(*top(scores[None, :], k)).best(0)
        return Best(chosen[places], best)

    def _near(self, block: Block, embedding: Embeddings, k: int, excluded: int) -> npt.NDArray[np.int64]:
        if block.cells is None:
            return self._graph.search(embedding, FROM_GRAPH * k + excluded)
        wanted, near = OVERFETCH * k + excluded, RESCORED * k + excluded
        return block.cells.near(len(block), np.ascontiguousarray(embedding), wanted, near)

"""Hits of a search in one block: rows and scores; item ids only for what is answered."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.index.block import Block
from headwater.index.candidates import Candidates


class RowHits(NamedTuple):
    """The best rows of a block for one answer, best first."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class BlockHits(NamedTuple):
    """The best rows of a block for B answers, best first: `rows` and `scores` (B, k), of which `counts` (B,) are there."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]

    def of_answer(self, answer: int) -> RowHits:
        """Return the hits of one answer."""
        count = self.counts[answer]
        return RowHits(self.rows[answer, :count], self.scores[answer, :count])


def to_candidates(block: Block, hits: BlockHits) -> list[Candidates]:
    """Return answers with item ids; they share the block's where these are listed, or there are many hits."""
    pool = block.listed(hits.rows.size)
    if pool is None:
        return [_listed(block, hits.of_answer(answer)) for answer in range(len(hits.counts))]
    return [
        Candidates(pool, hits.rows[answer, :count], hits.scores[answer, :count])
        for answer, count in enumerate(hits.counts.tolist())
    ]


def _listed(block: Block, hits: RowHits) -> Candidates:
    return Candidates.of([block.item_ids[row] for row in hits.rows.tolist()], hits.scores)


def united(hits: Iterable[tuple[Block, RowHits]], k: int) -> Candidates:
    """Return the k best hits of several blocks, each item once."""
    blocks, parts = zip(*hits, strict=True)
    if len(blocks) == 1:
        return _listed(blocks[0], parts[0])
    scores, rows = np.concatenate([part.scores for part in parts]), np.concatenate([part.rows for part in parts])
    block_of = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
    best: dict[str, int] = {}
    for hit in np.argsort(-scores, kind="stable").tolist():
        best.setdefault(blocks[block_of[hit]].item_ids[rows[hit]], hit)
        if len(best) == k:
            break
    return Candidates.of(list(best), scores[list(best.values())])

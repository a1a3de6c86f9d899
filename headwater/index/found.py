"""What a search found in a block: rows and scores first, item ids only for what is answered."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.index.block import Block
from headwater.index.candidates import Candidates, ItemIds

SHARED = 32
"""Rows of a block that are gone through in the time it takes to list an item's id."""


class Best(NamedTuple):
    """The best rows of a block for one row's answer, best first."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class Found(NamedTuple):
    """The best rows of a block for B answers, best first: `rows` and `scores` (B, k), of which `counts` (B,) are there."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]

    def best(self, answer: int) -> Best:
        """Return those of one answer."""
        count = self.counts[answer]
        return Best(self.rows[answer, :count], self.scores[answer, :count])


def named(block: Block, found: Found) -> list[Candidates]:
    """Return answers that share the ids of their items, if many are to be listed for each row of the block."""
    if len(found.counts) == 1 or len(block) > SHARED * found.rows.size:
        return [_listed(block, found.best(answer)) for answer in range(len(found.counts))]
    place_of = np.zeros(len(block), dtype=np.int64)
    place_of[found.rows] = 1
    rows = np.flatnonzero(place_of)
    place_of[rows] = np.arange(len(rows))
    among, places = ItemIds([block.item_ids[row] for row in rows.tolist()]), place_of[found.rows]
    return [
        Candidates(among, places[answer, :count], found.scores[answer, :count])
        for answer, count in enumerate(found.counts.tolist())
    ]


def _listed(block: Block, best: Best) -> Candidates:
    return Candidates.of([block.item_ids[row] for row in best.rows.tolist()], best.scores)


def united(found: Iterable[tuple[Block, Best]], k: int) -> Candidates:
    """Return the k best of what was found, each item once."""
    blocks, parts = zip(*found, strict=True)
    if len(blocks) == 1:
        return _listed(blocks[0], parts[0])
    scores, rows = np.concatenate([part.scores for part in parts]), np.concatenate([part.rows for part in parts])
    names = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
    best: dict[str, int] = {}
    for place in np.argsort(-scores, kind="stable").tolist():
        best.setdefault(blocks[names[place]].item_ids[rows[place]], place)
        if len(best) == k:
            break
    return Candidates.of(list(best), scores[list(best.values())])

"""Exact search of one block: every row is scored."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from headwater.index.added_scores import AddedScores
from headwater.index.block import Block
from headwater.index.hits import BlockHits
from headwater.index.top import NEVER, top

SCORES_AT_ONCE = 4_000_000


def search_exactly(
    block: Block,
    embeddings: npt.NDArray[np.float32],
    k: int,
    now_ms: int,
    eligible: npt.NDArray[np.bool_] | None,
    excluded: Sequence[Collection[str]],
    added: AddedScores | None,
) -> BlockHits:
    """Return the k best rows of a block for each user embedding (B, D + STREAMING).

    Args:
        eligible: (N,) which rows may be found; None for all.
        excluded: Item ids that each answer must not have.
        added: What is added to the scores of single items.
    """
    parts, step = [], max(1, SCORES_AT_ONCE // max(1, len(block)))
    for start in range(0, max(1, len(embeddings)), step):
        part = slice(start, start + step)
        scores = block.scores(embeddings[part], now_ms)
        if added:
            added.of(part).add_to(scores, block)
        if eligible is not None:
            scores[:, ~eligible] = NEVER
        for row_scores, out in zip(scores, excluded[part], strict=True):
            row_scores[rows_of(block, out)] = NEVER
        parts.append(top(scores, k))
    return BlockHits(*(parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))))


def rows_of(block: Block, item_ids: Collection[str]) -> list[int]:
    """Return the rows of items in a block; items that it does not have are ignored."""
    return [row for item_id in item_ids if (row := block.rows.get(item_id)) is not None]

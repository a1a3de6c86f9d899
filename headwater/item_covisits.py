"""Co-visitation of items by id, as a server counts it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.batched import batched
from headwater.covisit_features import DEPTH
from headwater.covisits import Covisits
from headwater.index.added_scores import AddedRows
from headwater.index.block import Block
from headwater.index.item_numbers import ItemNumbers
from headwater.successions import Succession

AT_ONCE = 64
MAX_NUMBERED = 20_000
"""Items of a block per user up to which it pays to number all of them."""


class ItemCovisits:
    """Numbers items as they come and counts their successions, each once."""

    def __init__(self) -> None:
        self._covisits = Covisits()
        self._names = ItemNumbers()
        self._counted: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._covisits)

    def count(self, partition: int, successions: Sequence[Succession]) -> None:
        """Count successions of a partition in order of their offsets; those counted already change nothing."""
        newest = self._counted.get(partition, -1)
        fresh = [each for each in successions if each.offset > newest]
        for part in batched(fresh, AT_ONCE):
            items = np.array([self._names.number(each.item_id) for each in part], dtype=np.int64)
            times_ms = np.array([each.at_ms for each in part], dtype=np.int64)
            self._covisits.count(
                items, times_ms, _padded([list(map(self._names.number, each.before)) for each in part])
            )
        if fresh:
            self._counted[partition] = fresh[-1].offset

    def scores(
        self, histories: Sequence[Sequence[str]], weights: npt.NDArray[np.float32], now_ms: int
    ) -> "CovisitScores":
        """Return what co-visitation adds to the scores of single items.

        Args:
            histories: B users' engagements, newest first.
            weights: (B, COVISITS) from the user tower.
            now_ms: Epoch ms.
        """
        return CovisitScores(self._covisits, self._names, self._numbers(histories), weights, now_ms)

    def features(self, history: Sequence[str], now_ms: int) -> dict[str, npt.NDArray[np.float32]]:
        """Return one user's features, item id to (COVISITS,); `history` newest first."""
        found = self._covisits.features(self._numbers([history]), np.array([now_ms]))
        return {
            self._names.texts[number]: values for number, values in zip(found.items.tolist(), found.values, strict=True)
        }

    def _numbers(self, histories: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
        return _padded([self._names.known(history[:DEPTH]) for history in histories])

    def forget(self, before_ms: int) -> None:
        """Drop items that nothing succeeded since a time, and their numbers, once they are the larger half."""
        active = self._covisits.active(before_ms)
        if 2 * len(active) > len(self):
            return
        kept = self._covisits.involved(active)
        self._covisits = self._covisits.renumbered(active, kept)
        self._names.keep(kept)


class CovisitScores(NamedTuple):
    """What co-visitation adds for B users; features are computed only for the items that are searched.

    Attributes:
        histories: (B, DEPTH) item numbers in `names`, newest first, 0 where there are none.
        weights: (B, COVISITS).
    """

    covisits: Covisits
    names: ItemNumbers
    histories: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    now_ms: int

    def of(self, rows: Sequence[int] | slice) -> "CovisitScores":
        return CovisitScores(self.covisits, self.names, self.histories[rows], self.weights[rows], self.now_ms)

    def add_to(self, scores: npt.NDArray[np.float32], block: Block) -> None:
        if len(block) <= MAX_NUMBERED * len(self.histories):
            columns = block.numbers(self.names), self.names.scratch()
            self.covisits.add_scores(self.histories, self.now_ms, self.weights, *columns, scores)
        else:
            more = self.within(block)
            scores[more.owners, more.rows] += more.scores

    def within(self, block: Block) -> AddedRows:
        now_ms = np.full(len(self.histories), self.now_ms)
        owners, items, values = self.covisits.features(self.histories, now_ms)
        rows = np.array([block.rows.get(self.names.texts[item], -1) for item in items.tolist()], dtype=np.int64)
        kept = rows >= 0
        owners, rows, values = owners[kept], rows[kept], values[kept]
        return AddedRows(owners, rows, np.einsum("ec,ec->e", values, self.weights[owners]))


def _padded(histories: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    padded = np.zeros((len(histories), DEPTH), dtype=np.int64)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = history
    return padded

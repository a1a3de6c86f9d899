"""Co-visitation of items by id, as a server follows it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headwater.covisit_features import DEPTH, CovisitFeatures
from headwater.covisits import Covisits
from headwater.index.added_scores import AddedScores
from headwater.index.item_numbers import ItemNumbers
from headwater.successions import Succession

AT_ONCE = 64


class ItemCovisits:
    """Numbers items as they come and counts their successions, each once."""

    def __init__(self) -> None:
        self._covisits = Covisits()
        self._names = ItemNumbers()
        self._counted: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._covisits)

    def engage(self, partition: int, successions: Sequence[Succession]) -> None:
        """Count successions of a partition in order of their offsets; those counted already change nothing."""
        newest = self._counted.get(partition, -1)
        fresh = [each for each in successions if each.offset > newest]
        for start in range(0, len(fresh), AT_ONCE):
            part = fresh[start : start + AT_ONCE]
            items = np.array([self._names.number(each.item_id) for each in part], dtype=np.int64)
            times_ms = np.array([each.at_ms for each in part], dtype=np.int64)
            self._covisits.engage(
                items, times_ms, _padded([list(map(self._names.number, each.before)) for each in part])
            )
        if fresh:
            self._counted[partition] = fresh[-1].offset

    def scores(self, histories: Sequence[Sequence[str]], weights: npt.NDArray[np.float32], now_ms: int) -> AddedScores:
        """Return what co-visitation adds to the scores of single items.

        Args:
            histories: B users' engagements, newest first.
            weights: (B, COVISITS) from the user tower.
            now_ms: Epoch ms.
        """
        found = self._found(histories, now_ms)
        scores = np.einsum("ec,ec->e", found.values, weights[found.owners])
        return AddedScores(found.owners, found.items, scores, self._names)

    def features(self, history: Sequence[str], now_ms: int) -> dict[str, npt.NDArray[np.float32]]:
        """Return one user's features, item id to (COVISITS,); `history` newest first."""
        found = self._found([history], now_ms)
        return {
            self._names.item_ids[number]: values
            for number, values in zip(found.items.tolist(), found.values, strict=True)
        }

    def _found(self, histories: Sequence[Sequence[str]], now_ms: int) -> CovisitFeatures:
        known = [[self._names.get(item_id) for item_id in history[:DEPTH]] for history in histories]
        return self._covisits.features(_padded(known), np.full(len(known), now_ms, dtype=np.int64))

    def forget(self, before_ms: int) -> None:
        """Drop items that nothing succeeded since a time, and their numbers, once they are the larger half."""
        active = self._covisits.active(before_ms)
        if 2 * len(active) > len(self):
            return
        self._covisits, kept = self._covisits.renumbered(active)
        self._names.keep(kept)


def _padded(histories: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    padded = np.zeros((len(histories), DEPTH), dtype=np.int64)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = history
    return padded

"""Answers of a search."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class ItemIds:
    """The item ids of answers found together, each once.

    Attributes:
        ids: N of them.
        encoded: Cached JSON encoding of the ids, shared by answers found together.
    """

    ids: list[str]
    encoded: tuple[Bytes, Ints, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """One answer, best first.

    Attributes:
        pool: The ids of its items, and perhaps of others.
        positions: (K,) of its items in the pool.
        scores: (K,) float32.
    """

    pool: ItemIds
    positions: Ints
    scores: Floats

    @classmethod
    def of(cls, item_ids: list[str], scores: Floats) -> Self:
        """Return an answer that shares its items with none."""
        return cls(ItemIds(item_ids), np.arange(len(item_ids)), scores)

    @property
    def item_ids(self) -> list[str]:
        """Return the ids of its items."""
        ids = self.pool.ids
        return [ids[position] for position in self.positions.tolist()]

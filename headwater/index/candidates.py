"""What a search found."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class ItemIds:
    """The item ids of answers that were found together, each once.

    Attributes:
        ids: N of them.
        encoded: What is made of them for one of these answers, for the others.
    """

    ids: list[str]
    encoded: tuple[Bytes, Ints, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """One row's answer, best first.

    Attributes:
        among: The ids of its items, and perhaps of others.
        places: (K,) where each of its items is among them.
        scores: (K,) float32.
    """

    among: ItemIds
    places: Ints
    scores: Floats

    @classmethod
    def of(cls, item_ids: list[str], scores: Floats) -> Self:
        """Return an answer that shares its items with none."""
        return cls(ItemIds(item_ids), np.arange(len(item_ids)), scores)

    @property
    def item_ids(self) -> list[str]:
        """Return the ids of its items."""
        ids = self.among.ids
        return [ids[place] for place in self.places.tolist()]

"""Which row of the id embeddings an item has; row 0 is shared by all that have none."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from headwater.durations import DAY_MS
from training.corpus import Corpus
from training.text_codes import CENTRES, PARTS, codes_of

Ints = npt.NDArray[np.int64]
EXPIRY_MS = DAY_MS
_SPREAD = 0x9E3779B1


class IdTable(Protocol):
    """Gives items rows of the id embeddings.

    Attributes:
        several: An item has several rows, which others have, too.
    """

    several: bool

    @property
    def size(self) -> int:
        """The highest row there can be, for now."""
        ...

    def admit(self, items: Ints, now_ms: int) -> Ints:
        """Give rows to items that are about to be learned; return rows that changed their item."""
        ...

    def rows(self, items: Ints) -> Ints:
        """Return rows, in the shape of `items`; a table that gives several rows to an item adds a dimension for them."""
        ...


class OwnRows:
    """A row for each item once it has enough engagements: no collision, no expiry, as many rows as items."""

    several = False

    def __init__(self, corpus: Corpus, min_engagements: int) -> None:
        self._corpus, self._min_engagements = corpus, min_engagements

    @property
    def size(self) -> int:
        return len(self._corpus.alive) - 1

    def admit(self, items: Ints, now_ms: int) -> Ints:
        return np.empty(0, dtype=np.int64)

    def rows(self, items: Ints) -> Ints:
        return np.where(self._corpus.totals[items] >= self._min_engagements, items, 0)


class HashedRows:
    """A fixed number of rows, shared by the items whose numbers hash alike."""

    several = False

    def __init__(self, size: int) -> None:
        self.size = size

    def admit(self, items: Ints, now_ms: int) -> Ints:
        return np.empty(0, dtype=np.int64)

    def rows(self, items: Ints) -> Ints:
        return np.where(items > 0, 1 + items * _SPREAD % 2**32 % self.size, 0)


class ExpiringRows:
    """A fixed number of rows without collisions (Monolith, arXiv 2209.07663).

    An item is admitted with enough engagements; once the rows are used up, those of items without a recent engagement
    are given to others.
    """

    several = False

    def __init__(self, corpus: Corpus, size: int, min_engagements: int) -> None:
        self.size = size
        self._corpus, self._min_engagements = corpus, min_engagements
        self._row_of = np.zeros(len(corpus.alive), dtype=np.int64)
        self._item_of = np.zeros(size + 1, dtype=np.int64)

    def admit(self, items: Ints, now_ms: int) -> Ints:
        self._fit()
        wanted = np.unique(items)
        wanted = wanted[(self._row_of[wanted] == 0) & (self._corpus.totals[wanted] >= self._min_engagements)]
        free = np.flatnonzero(self._item_of[1:] == 0) + 1
        if len(free) < len(wanted):
            used = np.flatnonzero(self._item_of)
            expired = used[self._corpus.engaged_ms[self._item_of[used]] < now_ms - EXPIRY_MS]
            self._row_of[self._item_of[expired]] = 0
            self._item_of[expired] = 0
            free = np.flatnonzero(self._item_of[1:] == 0) + 1
        wanted, rows = wanted[: len(free)], free[: len(wanted)]
        self._row_of[wanted], self._item_of[rows] = rows, wanted
        return rows

    def rows(self, items: Ints) -> Ints:
        self._fit()
        found: Ints = self._row_of[items]
        return found

    def _fit(self) -> None:
        missing = len(self._corpus.alive) - len(self._row_of)
        if missing:
            self._row_of = np.pad(self._row_of, (0, missing))


class CodedRows:
    """Rows for the codes of an item's text, which similar items share, and its own, if it has one."""

    several = True

    def __init__(self, corpus: Corpus, own: OwnRows | None) -> None:
        self._corpus, self._own = corpus, own
        self._codes = np.zeros((1, PARTS), dtype=np.int64)

    @property
    def size(self) -> int:
        return PARTS * CENTRES + (self._own.size if self._own else 0)

    def admit(self, items: Ints, now_ms: int) -> Ints:
        return np.empty(0, dtype=np.int64)

    def rows(self, items: Ints) -> Ints:
        if len(self._codes) <= len(self._corpus):
            self._codes = np.pad(codes_of(self._corpus.items), ((1, 0), (0, 0)))
        rows: Ints = self._codes[items]
        if self._own:
            own = self._own.rows(items)[..., None]
            rows = np.concatenate((rows, np.where(own > 0, own + PARTS * CENTRES, 0)), axis=-1)
        return rows


def id_table(corpus: Corpus, kind: str, size: int, min_engagements: int) -> IdTable:
    """Return the table of a kind: `own`, `hashed`, `expiring`, `text` or `text-and-own`."""
    if kind == "hashed":
        return HashedRows(size)
    if kind == "expiring":
        return ExpiringRows(corpus, size, min_engagements)
    if kind.startswith("text"):
        return CodedRows(corpus, OwnRows(corpus, min_engagements) if kind == "text-and-own" else None)
    return OwnRows(corpus, min_engagements)

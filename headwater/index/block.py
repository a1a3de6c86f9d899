"""Contiguous item embeddings, their static dimensions in one matrix and the streaming ones in another."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.activity import NO_ENGAGEMENT_MS, WINDOWS, ItemActivity
from headwater.features import STREAMING
from headwater.index.candidates import ItemIds
from headwater.index.cells import Cells
from headwater.index.item_numbers import ItemNumbers
from headwater.streaming_features import streaming_features

Ints = npt.NDArray[np.int64]

REFRESH_MS = 250
"""Age of the streaming dimensions at which all are computed again."""
REFRESH_SHARE = 0.05
"""Share of the time that this may take."""
MOST_STALE = 1024
STALE_SHARE = 0.1
"""Changed rows, in number and as a share, above which the streaming dimensions of all rows are computed again."""
SCANNED_FOR_MS = 60_000
"""How long a scan for active rows is valid."""
MOST_ACTIVATED = 256
"""Rows changed since a scan above which they are merged into it."""
FIRST_ROOM = 64
ROOM = 1.25
"""Rows that a block begins with per item it is known to get: to grow takes as long as to copy it all."""
SHARED = 4
"""Item ids of a block that are listed in the time it takes to list one for an answer of its own."""
FEW = 16
"""Embeddings for which BLAS would be slow: it copies its right factor into a form of its own."""
_ARRAYS = ("_static", "_streaming", "_counts", "_totals", "_as_of_ms", "_first_ms", "_published_ms", "_numbers")


def with_room(items: int) -> int:
    """Return the room to make for a number of expected items."""
    return round(ROOM * items)


class Block:
    """Rows of one topic, or of all items; deleting moves the last row into the gap.

    The streaming dimensions are computed for the time of the query: a row whose activity changed at the
    next query, all rows once they are `REFRESH_MS` old (large blocks: as often as `REFRESH_SHARE` of the
    time allows). Until the first query they take no memory.

    Args:
        dimension: D of the static dimensions.
        expected: Items it is known to get; it has room for them.
    """

    def __init__(self, dimension: int, expected: int = 0) -> None:
        room = max(with_room(expected), FIRST_ROOM)
        self._dimension = dimension
        self.item_ids: list[str] = []
        self.rows: dict[str, int] = {}
        self._static = np.zeros((room, dimension), dtype=np.float32)
        self._streaming = np.zeros((room, STREAMING), dtype=np.float32)
        self._counts = np.zeros((room, WINDOWS), dtype=np.float32)
        self._totals = np.zeros(room, dtype=np.int64)
        self._as_of_ms = np.zeros(room, dtype=np.int64)
        self._first_ms = np.zeros(room, dtype=np.int64)
        self._published_ms = np.zeros(room, dtype=np.int64)
        self._numbers = np.zeros(room, dtype=np.int64)
        self._sum = np.zeros(dimension, dtype=np.float64)
        self._squares = 0.0
        self._centroid: npt.NDArray[np.float32] | None = None
        self._numbered_by: tuple[ItemNumbers, int] | None = None
        self._names_seen = 0
        self._unnumbered: set[int] = set()
        self._listed: ItemIds | None = None
        self._stale_rows: set[int] = set()
        self._refreshed_ms = 0
        self._refresh_cost_ms = 0.0
        self._scanned_ms = 0
        self._scanned: Ints | None = None
        self._activated: set[int] = set()
        self.cells: Cells | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.rows

    def fill(
        self, item_ids: Sequence[str], embeddings: npt.NDArray[np.float32], published_ms: Ints, chosen: Ints
    ) -> None:
        """Insert N items without activity into the empty block at once.

        Args:
            item_ids: N ids.
            embeddings, published_ms: (M, D) and (M,), of these and others.
            chosen: (N,) positions of these items there.
        """
        count = len(item_ids)
        if len(self._static) < count:
            self._grow(with_room(count))
        self.item_ids, self._listed = list(item_ids), None
        self.rows = dict(zip(item_ids, range(count), strict=True))
        filled = self._static[:count]
        np.take(embeddings, chosen, axis=0, out=filled, mode="clip")  # a buffer would cost more than the copy
        self._first_ms[:count] = NO_ENGAGEMENT_MS
        self._published_ms[:count] = published_ms[chosen]
        self._sum, self._centroid = filled.sum(axis=0, dtype=np.float64), None
        self._squares = float(np.einsum("rc,rc->r", filled, filled).sum(dtype=np.float64))
        self._refreshed_ms = 0
        self._numbered_by = None

    def put(self, item_id: str, embedding: npt.NDArray[np.float32], published_ms: int, activity: ItemActivity) -> int:
        """Insert or replace an item and return its row."""
        row = self.rows.get(item_id)
        changed = row is None or not np.array_equal(self._static[row], embedding)
        if row is None:
            row = len(self.item_ids)
            if row == len(self._static):
                self._grow(2 * row)
            self.item_ids.append(item_id)
            self.rows[item_id], self._listed = row, None
            self._unnumbered.add(row)
        else:
            self._count(self._static[row], -1)
        self._count(embedding, 1)
        self._static[row] = embedding
        self._published_ms[row] = published_ms
        if self.cells and changed:
            self.cells.touch(row, self.embeddings())
        self.set_activity(item_id, activity)
        return row

    def _count(self, embedding: npt.NDArray[np.float32], times: int) -> None:
        self._sum += times * embedding
        self._squares += times * float(embedding @ embedding)
        self._centroid = None

    def _grow(self, room: int) -> None:
        for name in _ARRAYS:
            old = getattr(self, name)
            grown = np.zeros((room, *old.shape[1:]), dtype=old.dtype)
            grown[: len(old)] = old
            setattr(self, name, grown)

    def remove(self, item_id: str) -> None:
        """Delete an item that is here."""
        row, last = self.rows.pop(item_id), len(self.item_ids) - 1
        self._count(self._static[row], -1)
        moved, self._listed = self.item_ids.pop(), None
        if row != last:
            self.item_ids[row] = moved
            self.rows[moved] = row
            for name in _ARRAYS:
                array = getattr(self, name)
                array[row] = array[last]
            self._note_activity(row)
            if self.cells:
                self.cells.touch(row, self.embeddings())
            if last in self._unnumbered:
                self._unnumbered.add(row)
        self._stale_rows.discard(last)
        self._activated.discard(last)
        self._unnumbered.discard(last)

    def set_activity(self, item_id: str, activity: ItemActivity) -> None:
        """Set an item's counts; queries see them from the next one on."""
        row = self.rows[item_id]
        self._counts[row] = activity.counts
        self._totals[row] = activity.total
        self._as_of_ms[row] = activity.as_of_ms
        self._first_ms[row] = activity.first_ms
        self._note_activity(row)

    def _note_activity(self, row: int) -> None:
        self._stale_rows.add(row)
        if len(self._stale_rows) > max(MOST_STALE, STALE_SHARE * len(self)):
            self._stale_rows.clear()
            self._refreshed_ms = 0
        if self._scanned is not None:
            self._activated.add(row)

    def numbers(self, names: ItemNumbers) -> Ints:
        """Return the items' numbers (N,), 0 for those without one, a view; an item gets one when first engaged with."""
        new_numbers = range(self._names_seen, len(names.texts))
        if self._numbered_by != (names, names.epoch) or len(new_numbers) > len(self):
            self._numbered_by = names, names.epoch
            self._numbers[: len(self)] = names.known(self.item_ids)
        else:
            rows = list(self._unnumbered)
            self._numbers[rows] = names.known([self.item_ids[row] for row in rows])
            for number in new_numbers:
                if (of_item := self.rows.get(names.texts[number])) is not None:
                    self._numbers[of_item] = number
        self._names_seen = len(names.texts)
        self._unnumbered.clear()
        return self._numbers[: len(self)]

    def listed(self, hits: int) -> ItemIds | None:
        """Return all item ids by row, listed once until an item comes or goes; None where that takes longer than `hits` ids."""
        if self._listed is None and len(self) <= SHARED * hits:
            self._listed = ItemIds(self.item_ids.copy())
        return self._listed

    def embedding(self, item_id: str) -> npt.NDArray[np.float32]:
        """Return an item's static embedding (D,)."""
        found: npt.NDArray[np.float32] = self._static[self.rows[item_id]].copy()
        return found

    def embeddings(self) -> npt.NDArray[np.float32]:
        """Return all static embeddings (N, D), a view."""
        return self._static[: len(self)]

    def centroid(self) -> npt.NDArray[np.float32]:
        """Return the mean of the static embeddings, (D,)."""
        if self._centroid is None:
            self._centroid = (self._sum / max(1, len(self))).astype(np.float32)
        return self._centroid

    def spread(self) -> float:
        """Return the standard deviation of the static embeddings around the centroid in any one direction."""
        centroid = self.centroid()
        variance = self._squares / max(1, len(self)) - float(centroid @ centroid)
        return float(np.sqrt(max(0.0, variance) / self._dimension))

    def published_ms(self) -> Ints:
        """Return publish times (N,), a view."""
        return self._published_ms[: len(self)]

    def scores(self, embeddings: npt.NDArray[np.float32], now_ms: int) -> npt.NDArray[np.float32]:
        """Return the inner products (B, N) of user embeddings (B, D + STREAMING) with all items as of `now_ms`."""
        static, streaming = embeddings[:, : self._dimension], embeddings[:, self._dimension :]
        moving = self._as_of(now_ms)
        if len(embeddings) > FEW:
            scores = static @ self.embeddings().T
            scores += streaming @ moving.T
            return scores
        few = self.embeddings() @ static.T
        few += moving @ streaming.T
        return few.T

    def scores_of(self, rows: Ints, embedding: npt.NDArray[np.float32], now_ms: int) -> npt.NDArray[np.float32]:
        """Return the inner products (R,) of a user embedding (D + STREAMING,) with some rows as of `now_ms`."""
        found: npt.NDArray[np.float32] = self._static[rows] @ embedding[: self._dimension]
        found += self._streaming_of(rows, now_ms) @ embedding[self._dimension :]
        return found

    def _as_of(self, now_ms: int) -> npt.NDArray[np.float32]:
        """Return the streaming dimensions (N, STREAMING), a view."""
        found = self._streaming[: len(self)]
        due_ms = max(REFRESH_MS, self._refresh_cost_ms / REFRESH_SHARE)
        if abs(now_ms - self._refreshed_ms) >= due_ms:
            started = time.perf_counter()
            self._streaming_of(slice(0, len(self)), now_ms, found)
            self._refresh_cost_ms = (time.perf_counter() - started) * 1000
            self._refreshed_ms = now_ms
        elif self._stale_rows:
            rows = np.fromiter(self._stale_rows, dtype=np.int64)
            found[rows] = self._streaming_of(rows, now_ms)
        self._stale_rows.clear()
        return found

    def _streaming_of(
        self, rows: slice | Ints, now_ms: int, into: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        return streaming_features(
            self._counts[rows],
            self._totals[rows],
            self._as_of_ms[rows],
            self._first_ms[rows],
            self._published_ms[rows],
            now_ms,
            into,
        )

    def active_rows(self, since_ms: int) -> Ints:
        """Return the rows engaged with, or published, since a time, some perhaps twice."""
        if self._scanned is None or not self._scanned_ms <= since_ms < self._scanned_ms + SCANNED_FOR_MS:
            rows = np.empty(len(self), dtype=np.int64)
            count = _active(self._as_of_ms[: len(self)], self._published_ms[: len(self)], since_ms, rows)
            self._scanned, self._scanned_ms = rows[:count].copy(), since_ms
            self._activated.clear()
        activated = np.fromiter(self._activated, dtype=np.int64, count=len(self._activated))
        rows = np.concatenate((self._scanned, activated))
        if len(activated) > MOST_ACTIVATED:
            self._scanned = np.unique(rows)
            self._activated.clear()
        rows = rows[rows < len(self)]
        return rows[(self._as_of_ms[rows] >= since_ms) | (self._published_ms[rows] >= since_ms)]


@njit("int64(int64[::1], int64[::1], int64, int64[::1])", cache=True, nogil=True)
def _active(as_of_ms: Ints, published_ms: Ints, since_ms: int, rows: Ints) -> int:
    """Write the rows where either time is at least `since_ms`, and return how many there are."""
    count = 0
    for row in range(len(as_of_ms)):
        if as_of_ms[row] >= since_ms or published_ms[row] >= since_ms:
            rows[count] = row
            count += 1
    return count

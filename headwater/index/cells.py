"""K-means cells of a matrix's rows: a search reads those that promise most instead of all, and each row in 8 bits a dimension."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.index.top import top

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]

LEAST_READ = 8_000
MARGIN = 1.5
"""Rows that a search reads at least, and by how much the best of a cell may be farther from its mean than is likely."""
CELLS = 4
"""Cells for each root of the number of rows: more are smaller, and take longer to learn."""
MOST_NARROW = 512
"""Narrow cells in a wide one: where most rows are in one, learning takes no longer than elsewhere."""
SAMPLED, SEEDED, ROUNDS = 16, 8, 4
"""Rows for each centroid that it is learned from, how many of them may become one, and how often it moves."""
STRAYS, SETTLED = 1024, 32
"""Changed rows that each search reads until they get cells, and how many new ones those get that fit into none."""
FITS = 2
"""How many times as far from the mean as is usual in its cell a row may lie that joins it, squared."""
AT_ONCE, TIE = 4096, 1e-4
LARGEST = np.float32(127)
"""Of a code: a row is read as D codes of 8 bits and their scale, a fourth of what its embedding takes."""
NONE, GONE = 2**16 - 1, 2**62
"""No cell, and no row: what was here has changed since."""


class Cells:
    """Cells of N rows, learned in two steps: a few wide ones, then narrow ones inside each.

    Of n rows that are spread normally around a mean, the best for a user lies about sqrt(2 ln n) standard deviations
    from it in the user's direction. A search reads cells in the order of that, until the next one promises nothing
    better than what is found: a few where clusters lie apart, most where there is one. Rows that come or change are
    read by each search until they get cells: those that there are, or where they lie apart from them their own.
    """

    def __init__(self, dimension: int) -> None:
        self._means = np.empty((0, dimension), dtype=np.float32)
        self._variances = np.empty((0, dimension), dtype=np.float32)
        self._cell_of = np.empty(0, dtype=np.uint16)
        self._codes, self._scales = np.empty((0, dimension), dtype=np.int8), np.empty(0, dtype=np.float32)
        self._strays: set[int] = set()
        self._learned_from = self._changes = 0

    @classmethod
    def learned(cls, embeddings: Floats) -> tuple["Cells", Ints]:
        """Return cells, and the rows cell by cell, (N,); the cells are those of a matrix whose rows are sorted so.

        What is read together lies together then.

        Args:
            embeddings: (N, D) float32.
        """
        cells = cls(embeddings.shape[1])
        cells._learned_from, cells._cell_of = len(embeddings), np.full(len(embeddings), NONE, dtype=np.uint16)
        count = CELLS * len(embeddings) ** 0.5
        wide_of = _closest(embeddings, _centroids(embeddings, round(count**0.5)))
        by_cell, ends = np.argsort(wide_of, kind="stable"), np.cumsum(np.bincount(wide_of))
        for rows in filter(len, np.split(by_cell, ends[:-1])):
            narrow = min(max(1, round(count * len(rows) / len(embeddings))), MOST_NARROW)
            cells._add(rows, embeddings[rows], narrow)
        order = np.argsort(cells._cell_of, kind="stable")
        cells._cell_of = cells._cell_of[order]
        cells._sort()
        cells._codes, cells._scales = np.empty(embeddings.shape, dtype=np.int8), np.empty(len(order), dtype=np.float32)
        for start in range(0, len(order), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            cells._codes[part], cells._scales[part] = _coded(embeddings[order[part]])
        return cells, order

    def _add(self, rows: Ints, embeddings: Floats, count: int) -> None:
        """Give some rows (R,) and their embeddings (R, D) at most `count` new cells."""
        cell_of = _closest(embeddings, _centroids(embeddings, count))
        order = np.argsort(cell_of, kind="stable")
        _, starts, sizes = np.unique(cell_of[order], return_index=True, return_counts=True)
        inside, shares = embeddings[order], 1 / sizes[:, None].astype(np.float32)
        means = np.add.reduceat(inside, starts) * shares
        variances = np.maximum(np.add.reduceat(inside * inside, starts) * shares - means * means, 0)
        self._cell_of[rows[order]] = np.repeat(np.arange(len(self._means), len(self._means) + len(means)), sizes)
        self._means = np.concatenate((self._means, means))
        self._variances = np.concatenate((self._variances, variances))

    def _sort(self) -> None:
        sizes = np.bincount(self._cell_of, minlength=NONE + 1)[: len(self._means)]
        self._likely = (MARGIN * np.sqrt(2 * np.log(np.maximum(1, sizes)))).astype(np.float32)
        self._ends = np.concatenate(([0], np.cumsum(sizes)))
        self._rows = np.argsort(self._cell_of, kind="stable")[: self._ends[-1]]
        self._place_of = np.full(len(self._cell_of), GONE)
        self._place_of[self._rows] = np.arange(len(self._rows))

    def touch(self, row: int, embeddings: Floats) -> None:
        """Note that a row is new, or holds something else than before.

        Args:
            embeddings: (N, D) float32, the rows as they are now.
        """
        self._changes += 1
        self._strays.add(row)
        if row >= len(self._codes):
            room = max(2 * len(self._codes), row + 1)
            self._codes, self._scales = _extended(self._codes, room), _extended(self._scales, room)
        codes, scales = _coded(embeddings[row : row + 1])
        self._codes[row], self._scales[row] = codes[0], scales[0]
        if row < len(self._place_of) and self._place_of[row] != GONE:
            self._rows[self._place_of[row]] = GONE
            self._place_of[row] = GONE
            self._cell_of[row] = NONE
        if len(self._strays) > STRAYS:
            self._settle(embeddings)

    def _settle(self, embeddings: Floats) -> None:
        """Give the strays cells."""
        kept = self._cell_of[: len(embeddings)]
        self._cell_of = np.full(len(embeddings), NONE, dtype=np.uint16)
        self._cell_of[: len(kept)] = kept
        rows = np.array([row for row in self._strays if row < len(embeddings)], dtype=np.int64)
        self._strays.clear()
        inside = embeddings[rows]
        cells = _closest(inside, self._means)
        apart = inside - self._means[cells]
        fit = np.einsum("rd,rd->r", apart, apart) <= FITS * self._variances[cells].sum(axis=1) + TIE
        self._cell_of[rows] = cells
        if not fit.all() and len(self._means) + SETTLED < NONE:
            self._add(rows[~fit], inside[~fit], SETTLED)
        self._sort()

    def outgrown(self) -> bool:
        """Say whether more rows changed than they were learned from."""
        return self._changes > self._learned_from

    def near(self, length: int, embedding: Floats, k: int, wanted: int) -> Ints:
        """Return the rows of about the k largest inner products with `embedding` (D,), and of `wanted` large ones in all.

        Args:
            length: N, of the matrix as it is now.
            embedding: (D,) float32.
            k: As many have to be found.
            wanted: At most as many are returned.
        """
        expected = self._means @ embedding + self._likely * np.sqrt(self._variances @ (embedding * embedding))
        strays = np.fromiter(self._strays, dtype=np.int64, count=len(self._strays))
        order = np.argsort(-expected)
        read = self._codes, self._scales, length, embedding, k, LEAST_READ
        rows, scores = _read(*read, strays, order, expected, self._ends, self._rows)
        return rows if len(rows) <= wanted else rows[top(scores[None, :], wanted)[0][0]]


def _coded(embeddings: Floats) -> tuple[Codes, Floats]:
    """Return what is about the embeddings (R, D) once each row is multiplied by its scale (R,)."""
    scales = np.maximum(np.abs(embeddings).max(axis=1), np.finfo(np.float32).tiny) / LARGEST
    return np.rint(embeddings / scales[:, None]).astype(np.int8), scales


def _extended(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    extended = np.zeros((length, *array.shape[1:]), dtype=array.dtype)
    extended[: len(array)] = array
    return extended


def _centroids(embeddings: Floats, count: int) -> Floats:
    """Return at most `count` centroids, (C, D)."""
    random = np.random.default_rng(0)
    sample = embeddings[random.choice(len(embeddings), min(len(embeddings), SAMPLED * count), replace=False)]
    centroids = _seeds(sample[: SEEDED * count], count, random)
    for _ in range(ROUNDS):
        cells = _closest(sample, centroids)
        order = np.argsort(cells, kind="stable")
        _, starts, sizes = np.unique(cells[order], return_index=True, return_counts=True)
        centroids = np.add.reduceat(sample[order], starts)
        centroids /= sizes[:, None]
    return centroids


def _seeds(sample: Floats, count: int, random: np.random.Generator) -> Floats:
    """Return at most `count` rows, each drawn in proportion to its squared distance from those before it (k-means++)."""
    squares, drawn = np.einsum("rc,rc->r", sample, sample), [0]
    distances = np.full(len(sample), np.inf, dtype=np.float32)
    while len(drawn) < count:
        last = drawn[-1]
        np.minimum(distances, squares + squares[last] - 2 * (sample @ sample[last]), out=distances)
        np.maximum(distances, 0, out=distances)
        distances[last] = 0
        sums = np.cumsum(distances, dtype=np.float64)
        if not sums[-1]:
            break
        drawn.append(int(np.searchsorted(sums, random.random() * sums[-1], side="right")))
    return sample[drawn]


def _closest(embeddings: Floats, centroids: Floats) -> Ints:
    """Return the centroid that is closest to each row, (N,)."""
    cells, halves = np.empty(len(embeddings), dtype=np.int64), np.einsum("cd,cd->c", centroids, centroids) / 2
    for start in range(0, len(embeddings), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        cells[part] = (embeddings[part] @ centroids.T - halves).argmax(axis=1)
    return cells


_INTS, _FLOATS, _CODES = "int64[::1]", "float32[::1]", "int8[:, ::1]"


@njit(f"void({_FLOATS}, float32)", cache=True, nogil=True)
def _offer(best: Floats, score: np.float32) -> None:
    """Put a score in place of the worst of a heap, unless it is worse itself."""
    if not score > best[0]:
        return
    at, child = 0, 1
    while child < len(best):
        if child + 1 < len(best) and best[child + 1] < best[child]:
            child += 1
        if best[child] >= score:
            break
        best[at] = best[child]
        at, child = child, 2 * child + 1
    best[at] = score


@njit(f"void({_CODES}, {_FLOATS}, {_INTS}, {_FLOATS})", cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _score(codes: Codes, embedding: Floats, rows: Ints, scores: Floats) -> None:
    """Write the inner products of some rows, four at a time: memory is slower than one alone."""
    fours = len(rows) // 4 * 4
    for at in range(0, fours, 4):
        one, two, three, four = rows[at], rows[at + 1], rows[at + 2], rows[at + 3]
        first = second = third = fourth = np.float32(0)
        for dimension in range(len(embedding)):
            weight = embedding[dimension]
            first += np.float32(codes[one, dimension]) * weight
            second += np.float32(codes[two, dimension]) * weight
            third += np.float32(codes[three, dimension]) * weight
            fourth += np.float32(codes[four, dimension]) * weight
        scores[at], scores[at + 1], scores[at + 2], scores[at + 3] = first, second, third, fourth
    for at in range(fours, len(rows)):
        product = np.float32(0)
        for dimension in range(len(embedding)):
            product += np.float32(codes[rows[at], dimension]) * embedding[dimension]
        scores[at] = product


@njit(
    f"Tuple(({_INTS}, {_FLOATS}))({_CODES}, {_FLOATS}, int64, {_FLOATS}, int64, int64, {_INTS}, {_INTS}, {_FLOATS}, {_INTS}, "
    f"{_INTS})",
    cache=True,
    nogil=True,
)
def _read(
    codes: Codes,
    scales: Floats,
    length: int,
    embedding: Floats,
    k: int,
    least: int,
    strays: Ints,
    order: Ints,
    expected: Floats,
    ends: Ints,
    cell_rows: Ints,
) -> tuple[Ints, Floats]:
    """Return rows and scores of strays and of cells, until the next one is expected to have none of the k best."""
    best, read = np.full(k, -np.inf, dtype=np.float32), 0
    rows = np.empty(len(strays) + len(cell_rows), dtype=np.int64)
    scores = np.empty(len(rows), dtype=np.float32)
    for turn in range(-1, len(order)):
        if turn >= 0 and read >= least and expected[order[turn]] < best[0]:
            break
        begin = read
        for row in strays if turn < 0 else cell_rows[ends[order[turn]] : ends[order[turn] + 1]]:
            if row < length:
                rows[read] = row
                read += 1
        _score(codes, embedding, rows[begin:read], scores[begin:read])
        for at in range(begin, read):
            scores[at] *= scales[rows[at]]
            _offer(best, scores[at])
    return rows[:read], scores[:read]

"""K-means cells of a matrix's rows: a search reads the most promising ones, 8 bits per dimension."""

from typing import Self

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.index.top import top

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]

LEAST_READ = 8_000
"""Rows that a search reads at least."""
MARGIN = 1.5
"""How much farther from its mean than is likely the best row of a cell may be."""
CELLS = 4
"""Cells per root of the number of rows: more are smaller, and take longer to learn."""
MAX_SMALL = 512
"""Small cells in a large one: where most rows are in one, learning takes no longer than elsewhere."""
SAMPLED = 16
"""Rows per centroid that it is learned from."""
SEEDED = 8
"""Rows per centroid, of those sampled, that it may begin at."""
ROUNDS = 4
"""Rounds of k-means."""
STRAYS = 2048
"""Changed rows that each search reads until they get cells."""
SETTLED = 32
"""New cells for changed rows that fit into none, at most."""
FITS = 2
"""How many times the usual squared distance from the mean of its cell a row that joins it may have."""
TIE = 1e-4
AT_ONCE = 4096
MAX_CODE = np.float32(127)
"""A row is read as D codes of 8 bits and their scale, a fourth of what its embedding takes."""
MAX_CELLS = 2**16
GONE = 2**62
"""Marks an empty position, or a row without one."""


class Cells:
    """Cells of N rows, learned in two steps: a few large ones, then small ones inside each.

    Of n rows that are spread normally around a mean, the best for a user lies about sqrt(2 ln n) standard deviations
    from it in the user's direction. A search reads cells in the order of that, until the next one promises nothing
    better than what is found: a few where clusters lie apart, most where there is one. Rows that come or change are
    read by each search until they get cells: those that there are, or where they lie apart from them their own.

    Codes are stored by position: those of each cell together, after them those of rows without a cell.
    """

    def __init__(self, dimension: int) -> None:
        self._means = np.empty((0, dimension), dtype=np.float32)
        self._variances = np.empty((0, dimension), dtype=np.float32)
        self._learned_from = self._changes = 0

    @classmethod
    def learned(cls, embeddings: Floats) -> Self:
        """Return the cells of the rows of a matrix (N, D) float32."""
        cells = cls(embeddings.shape[1])
        cells._learned_from = len(embeddings)
        count, cell_of = CELLS * len(embeddings) ** 0.5, np.empty(len(embeddings), dtype=np.int64)
        large_of = _closest(embeddings, _centroids(embeddings, round(count**0.5)))
        by_cell, ends = np.argsort(large_of, kind="stable"), np.cumsum(np.bincount(large_of))
        for rows in filter(len, np.split(by_cell, ends[:-1])):
            small = min(max(1, round(count * len(rows) / len(embeddings))), MAX_SMALL)
            cell_of[rows] = cells._add(embeddings[rows], small)
        every = np.arange(len(embeddings))
        cells._store(every, every, *_coded(embeddings), cell_of)
        return cells

    def _add(self, embeddings: Floats, count: int) -> Ints:
        """Return the cell of each row (R,), of at most `count` new ones."""
        cell_of = _closest(embeddings, _centroids(embeddings, count))
        order = np.argsort(cell_of, kind="stable")
        _, starts, sizes = np.unique(cell_of[order], return_index=True, return_counts=True)
        inside, shares = embeddings[order], 1 / sizes[:, None].astype(np.float32)
        means = np.add.reduceat(inside, starts) * shares
        variances = np.maximum(np.add.reduceat(inside * inside, starts) * shares - means * means, 0)
        cell_of[order] = np.repeat(np.arange(len(self._means), len(self._means) + len(means)), sizes)
        self._means = np.concatenate((self._means, means))
        self._variances = np.concatenate((self._variances, variances))
        return cell_of

    def _store(self, rows: Ints, positions: Ints, codes: Codes, scales: Floats, cell_of: Ints) -> None:
        """Store rows (R,), whose codes are now at `positions` (R,), cell by cell, with room for more after them."""
        order = np.argsort(cell_of.astype(np.uint16), kind="stable")  # of 16 bits in linear time
        sizes = np.bincount(cell_of, minlength=len(self._means))
        self._likely = (MARGIN * np.sqrt(2 * np.log(np.maximum(1, sizes)))).astype(np.float32)
        self._ends = np.concatenate(([0], np.cumsum(sizes)))
        self._used, room = len(rows), len(rows) + STRAYS + 1
        self._rows, self._codes = np.full(room, GONE), np.empty((room, codes.shape[1]), dtype=np.int8)
        self._scales = np.empty(room, dtype=np.float32)
        self._rows[: self._used], moved = rows[order], positions[order]
        np.take(codes, moved, axis=0, out=self._codes[: self._used], mode="clip")  # a buffer would take twice as long
        np.take(scales, moved, out=self._scales[: self._used], mode="clip")
        self._position_of = np.full(int(rows.max(initial=-1)) + 1, GONE)
        self._position_of[self._rows[: self._used]] = np.arange(self._used)

    def touch(self, row: int, embeddings: Floats) -> None:
        """Note that a row is new or has another embedding.

        Args:
            embeddings: (N, D) float32, the rows as they are now.
        """
        self._changes += 1
        if row >= len(self._position_of):
            known, self._position_of = self._position_of, np.full(2 * row + 1, GONE)
            self._position_of[: len(known)] = known
        if self._position_of[row] != GONE:
            self._rows[self._position_of[row]] = GONE
        position = self._position_of[row] = self._used
        codes, scales = _coded(embeddings[row : row + 1])
        self._rows[position], self._codes[position], self._scales[position] = row, codes[0], scales[0]
        self._used += 1
        if self._used == len(self._rows):
            self._settle(embeddings)

    def _settle(self, embeddings: Floats) -> None:
        """Assign cells to the rows that have none."""
        here = self._rows[: self._used] < len(embeddings)
        cell_of = np.repeat(np.arange(len(self._means) + 1), np.diff(self._ends, append=self._used))
        strays = np.flatnonzero(here[self._ends[-1] :]) + self._ends[-1]
        inside = embeddings[self._rows[strays]]
        cells = _closest(inside, self._means)
        apart = inside - self._means[cells]
        fit = np.einsum("rd,rd->r", apart, apart) <= FITS * self._variances[cells].sum(axis=1) + TIE
        if not fit.all() and len(self._means) + SETTLED < MAX_CELLS:
            cells[~fit] = self._add(inside[~fit], SETTLED)
        cell_of[strays] = cells
        kept = np.flatnonzero(here)
        self._store(self._rows[kept], kept, self._codes, self._scales, cell_of[kept])

    def is_stale(self) -> bool:
        """Say whether more rows have changed than the cells were learned from."""
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
        coded = self._rows, self._codes, self._scales
        rows, scores = _read(
            *coded, self._used, length, embedding, k, LEAST_READ, np.argsort(-expected), expected, self._ends
        )
        return rows if len(rows) <= wanted else rows[top(scores[None, :], wanted)[0][0]]


def _coded(embeddings: Floats) -> tuple[Codes, Floats]:
    """Return codes (R, D) and scales (R,) whose products are about the embeddings (R, D)."""
    scales = np.maximum(np.abs(embeddings).max(axis=1, initial=0) / MAX_CODE, np.finfo(np.float32).tiny)
    codes = np.empty(embeddings.shape, dtype=np.int8)
    for start in range(0, len(embeddings), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        codes[part] = np.rint(embeddings[part] / scales[part, None])
    return codes, scales


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


@njit(f"void({_CODES}, {_FLOATS}, {_FLOATS})", cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _score(codes: Codes, embedding: Floats, scores: Floats) -> None:
    """Write the inner products of codes (R, D), of four rows at a time: one alone does not keep memory busy."""
    fours = len(codes) // 4 * 4
    for row in range(0, fours, 4):
        first = second = third = fourth = np.float32(0)
        for dimension in range(len(embedding)):
            weight = embedding[dimension]
            first += np.float32(codes[row, dimension]) * weight
            second += np.float32(codes[row + 1, dimension]) * weight
            third += np.float32(codes[row + 2, dimension]) * weight
            fourth += np.float32(codes[row + 3, dimension]) * weight
        scores[row], scores[row + 1], scores[row + 2], scores[row + 3] = first, second, third, fourth
    for row in range(fours, len(codes)):
        product = np.float32(0)
        for dimension in range(len(embedding)):
            product += np.float32(codes[row, dimension]) * embedding[dimension]
        scores[row] = product


@njit(
    f"Tuple(({_INTS}, {_FLOATS}))({_INTS}, {_CODES}, {_FLOATS}, int64, int64, {_FLOATS}, int64, int64, {_INTS}, {_FLOATS}, "
    f"{_INTS})",
    cache=True,
    nogil=True,
)
def _read(
    rows: Ints,
    codes: Codes,
    scales: Floats,
    used: int,
    length: int,
    embedding: Floats,
    k: int,
    least: int,
    order: Ints,
    expected: Floats,
    ends: Ints,
) -> tuple[Ints, Floats]:
    """Return rows and scores of those without a cell and of cells, until the next one is expected to have none of the k best."""
    best, read = np.full(k, -np.inf, dtype=np.float32), 0
    found, scores = np.empty(used, dtype=np.int64), np.empty(used, dtype=np.float32)
    for turn in range(-1, len(order)):
        begin, end = ends[-1], used
        if turn >= 0:
            if read >= least and expected[order[turn]] < best[0]:
                break
            begin, end = ends[order[turn]], ends[order[turn] + 1]
        _score(codes[begin:end], embedding, scores[read : read + end - begin])
        at = read
        for position in range(begin, end):
            score = scores[at] * scales[position]
            at += 1
            if rows[position] < length:
                found[read], scores[read] = rows[position], score
                _offer(best, score)
                read += 1
    return found[:read], scores[:read]

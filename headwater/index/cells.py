"""K-means cells of a matrix's rows: a search reads those that promise most instead of all."""

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

LEAST_READ = 16_000
MARGIN = 1.5
"""Rows that a search reads at least, and by how much the best of a cell may be farther from its centroid than is likely."""
CELLS = 4
"""Cells for each root of the number of rows: more are smaller, and take longer to learn."""
MOST_NARROW = 512
"""Narrow cells in a wide one: where most rows are in one, learning takes no longer than elsewhere."""
SAMPLED, SEEDED, ROUNDS = 16, 8, 4
"""Rows for each centroid that it is learned from, how many of them may become one, and how often it moves."""
STRAYS = 2048
"""Changed rows that each search reads, until they are given cells together."""
AT_ONCE = 4096


class Cells:
    """Cells of N rows, learned in two steps: a few wide ones, then narrow ones inside each.

    Of n rows that are spread normally around a centroid, the best for a user lies about sqrt(2 ln n) standard deviations
    from it in the user's direction. A search reads cells in the order of that, until the next one promises nothing better
    than what is found: a few where clusters lie apart, most where there is one. What comes or changes is read by each
    search until it is given a cell.

    Args:
        embeddings: (N, D) float32, N > 0.

    Attributes:
        order: (N,) The rows cell by cell. Whoever owns the matrix sorts it so before a search: what is read together
            lies together.
    """

    def __init__(self, embeddings: Floats) -> None:
        self._changes = 0
        count = CELLS * len(embeddings) ** 0.5
        wide_of, _ = _closest(embeddings, _centroids(embeddings, round(count**0.5)))
        order, ends = np.argsort(wide_of, kind="stable"), np.cumsum(np.bincount(wide_of))
        cell_of, squares = np.empty(len(embeddings), dtype=np.int64), np.empty(len(embeddings))
        found: list[Floats] = []
        for rows in filter(len, np.split(order, ends[:-1])):
            inside = embeddings[rows]
            narrow = _centroids(inside, min(max(1, round(count * len(rows) / len(embeddings))), MOST_NARROW))
            cells, squares[rows] = _closest(inside, narrow)
            cell_of[rows] = cells + sum(map(len, found))
            found.append(narrow)
        self._centroids = np.concatenate(found)
        sizes = np.maximum(1, np.bincount(cell_of, minlength=len(self._centroids)))
        variances = np.bincount(cell_of, squares, len(sizes)) / sizes / embeddings.shape[1]
        self._reach = (MARGIN * np.sqrt(variances * 2 * np.log(sizes))).astype(np.float32)
        self.order = np.argsort(cell_of, kind="stable")
        self._cell_of = cell_of[self.order]
        self._sort()

    def _sort(self) -> None:
        self._rows = np.argsort(self._cell_of, kind="stable")
        self._ends = np.concatenate(([0], np.cumsum(np.bincount(self._cell_of, minlength=len(self._centroids)))))
        self._strays: set[int] = set()

    def touch(self, row: int) -> None:
        """Note that a row is new, or holds something else than before."""
        self._strays.add(row)
        self._changes += 1

    def outgrown(self) -> bool:
        """Say whether as many rows changed as they were learned from."""
        return self._changes > len(self.order)

    def near(self, embeddings: Floats, embedding: Floats, k: int) -> Ints:
        """Return the rows of about the k largest inner products with `embedding` (D,), in any order, some perhaps twice.

        Args:
            embeddings: (N, D) float32, the rows as they are now.
        """
        if len(self._strays) > STRAYS:
            self._settle(embeddings)
        expected = self._centroids @ embedding + np.linalg.norm(embedding) * self._reach
        strays = np.fromiter(self._strays, dtype=np.int64, count=len(self._strays))
        order = np.argsort(-expected)
        return _read(embeddings, embedding, k, LEAST_READ, strays, order, expected, self._ends, self._rows)

    def _settle(self, embeddings: Floats) -> None:
        """Give the strays cells."""
        kept = self._cell_of[: len(embeddings)]
        self._cell_of = np.zeros(len(embeddings), dtype=np.int64)
        self._cell_of[: len(kept)] = kept
        rows = np.array([row for row in self._strays if row < len(embeddings)], dtype=np.int64)
        self._cell_of[rows], _ = _closest(embeddings[rows], self._centroids)
        self._sort()


def _centroids(embeddings: Floats, count: int) -> Floats:
    """Return at most `count` centroids, (C, D)."""
    random = np.random.default_rng(0)
    sample = embeddings[random.choice(len(embeddings), min(len(embeddings), SAMPLED * count), replace=False)]
    centroids = _seeds(sample[: SEEDED * count], count, random)
    for _ in range(ROUNDS):
        cells, _ = _closest(sample, centroids)
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


def _closest(embeddings: Floats, centroids: Floats) -> tuple[Ints, Floats]:
    """Return the centroid that is closest to each row (N,), and the square of its distance."""
    cells, squares = np.empty(len(embeddings), dtype=np.int64), np.einsum("rc,rc->r", embeddings, embeddings)
    halves = np.einsum("cd,cd->c", centroids, centroids) / 2
    for start in range(0, len(embeddings), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        products = embeddings[part] @ centroids.T - halves
        cells[part] = products.argmax(axis=1)
        squares[part] -= 2 * products.max(axis=1)
    return cells, np.maximum(squares, 0)


_INTS, _FLOATS = "int64[::1]", "float32[::1]"


@njit(f"void({_FLOATS}, {_INTS}, float32, int64)", cache=True, nogil=True)
def _offer(scores: Floats, rows: Ints, score: np.float32, row: int) -> None:
    """Put a row in place of the worst of a heap, unless it is worse itself."""
    if not score > scores[0]:
        return
    at, child = 0, 1
    while child < len(scores):
        if child + 1 < len(scores) and scores[child + 1] < scores[child]:
            child += 1
        if scores[child] >= score:
            break
        scores[at], rows[at] = scores[child], rows[child]
        at, child = child, 2 * child + 1
    scores[at], rows[at] = score, row


@njit(f"float32(float32[:, ::1], int64, {_FLOATS})", cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _product(embeddings: Floats, row: int, embedding: Floats) -> np.float32:
    product = np.float32(0)
    for dimension in range(len(embedding)):
        product += embeddings[row, dimension] * embedding[dimension]
    return product


@njit(
    f"{_INTS}(float32[:, ::1], {_FLOATS}, int64, int64, {_INTS}, {_INTS}, {_FLOATS}, {_INTS}, {_INTS})",
    cache=True,
    nogil=True,
)
def _read(
    embeddings: Floats,
    embedding: Floats,
    k: int,
    least: int,
    strays: Ints,
    order: Ints,
    expected: Floats,
    ends: Ints,
    cell_rows: Ints,
) -> Ints:
    """Return the k best rows of strays and of cells, read until the next one is expected to have none of them."""
    scores, rows, read = np.full(k, -np.inf, dtype=np.float32), np.full(k, -1), 0
    for row in strays:
        if row < len(embeddings):
            _offer(scores, rows, _product(embeddings, row, embedding), row)
    for cell in order:
        if read >= least and expected[cell] < scores[0]:
            break
        for row in cell_rows[ends[cell] : ends[cell + 1]]:
            if row < len(embeddings):
                _offer(scores, rows, _product(embeddings, row, embedding), row)
        read += ends[cell + 1] - ends[cell]
    return rows[rows >= 0]

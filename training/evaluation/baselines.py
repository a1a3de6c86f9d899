"""Strong linear baselines that know nothing of the condition; a filter makes them answer for a topic."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Protocol

import click
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

EASE_PENALTY = 200.0
ALS_FACTORS = 32
ALS_ALPHA = 5.0
ALS_PENALTY = 0.1
ALS_ITERATIONS = 20


class Baseline(Protocol):
    """Scores items for a user given by all items of the past."""

    def scores(self, past: Ints, items: Ints) -> Floats:
        """Return scores (N,) of items for a user who engaged with `past`, in corpus numbers."""
        ...


class ItemWeights:
    """Scores an item by its weights from the user's items: one square matrix (items, items)."""

    def __init__(self, weights: Floats) -> None:
        self._weights = weights

    def scores(self, past: Ints, items: Ints) -> Floats:
        summed: Floats = self._weights[past].sum(axis=0)[items]
        return summed


class Factors:
    """Scores an item by the inner product of factors; the user's are solved for from the past."""

    def __init__(self, items: Floats, alpha: float, penalty: float) -> None:
        self._items, self._alpha = items, alpha
        self._gram = items.T @ items + penalty * np.eye(items.shape[1], dtype=np.float32)

    def scores(self, past: Ints, items: Ints) -> Floats:
        mine = self._items[past]
        system = self._gram + (self._alpha - 1.0) * mine.T @ mine
        user = np.linalg.solve(system, self._alpha * mine.sum(axis=0))
        scored: Floats = self._items[items] @ user
        return scored


def item_knn(users: Ints, items: Ints, size: int, seed: int) -> Baseline:
    """Return co-visitation over all time: the cosine of two items' users."""
    together = _together(users, items, size)
    norms = np.sqrt(np.maximum(np.diag(together), 1.0))
    weights: Floats = (together / norms[:, None] / norms).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    return ItemWeights(weights)


def ease(users: Ints, items: Ints, size: int, seed: int) -> Baseline:
    """Return EASE (Steck, arXiv 1905.03375): the closed-form linear autoencoder with a zero diagonal."""
    return ItemWeights(_ease(users, items, size))


def ease_positive(users: Ints, items: Ints, size: int, seed: int) -> Baseline:
    """Return EASE without its negative weights, which shows what they are worth."""
    return ItemWeights(np.maximum(_ease(users, items, size), 0.0))


def als(users: Ints, items: Ints, size: int, seed: int) -> Baseline:
    """Return weighted matrix factorisation (Hu et al. 2008) by alternating least squares; needs `implicit`."""
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=ALS_FACTORS,
            alpha=ALS_ALPHA,
            regularization=ALS_PENALTY,
            iterations=ALS_ITERATIONS,
            random_state=seed,
        )
        model.fit(csr_matrix(_engaged(users, items, size)), show_progress=False)
    return Factors(model.item_factors, ALS_ALPHA, ALS_PENALTY)


Fit = Callable[[Ints, Ints, int, int], Baseline]
BASELINES: Mapping[str, Fit] = {
    "item-knn": item_knn,
    "ease": ease,
    "ease-positive": ease_positive,
    "als": als,
}
"""Name to what is fitted on users (N,), items (N,), the number of items and a seed."""


def installed_baselines() -> dict[str, Fit]:
    """Return those of `BASELINES` whose packages are installed, and report the one that is left out."""
    if find_spec("implicit"):
        return dict(BASELINES)
    click.echo("the baseline als is left out: it needs the package implicit (pip install implicit)", err=True)
    return {name: fit for name, fit in BASELINES.items() if fit is not als}


def _engaged(users: Ints, items: Ints, size: int) -> Floats:
    """Return who engaged with what, (users, items) of 0 and 1."""
    engaged = np.zeros((int(users.max(initial=0)) + 1, size), dtype=np.float32)
    engaged[users, items] = 1.0
    return engaged


def _together(users: Ints, items: Ints, size: int) -> Floats:
    engaged = _engaged(users, items, size)
    together: Floats = engaged.T @ engaged
    return together


def _ease(users: Ints, items: Ints, size: int) -> Floats:
    together = _together(users, items, size)
    inverse = np.linalg.inv(together + EASE_PENALTY * np.eye(size, dtype=np.float32))
    weights: Floats = (-inverse / np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    return weights

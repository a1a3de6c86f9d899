"""The linear baselines on a log whose structure is known."""

import numpy as np
import pytest

from training.evaluation.baselines import BASELINES, ease, ease_positive

SIZE = 13


@pytest.fixture(scope="module")
def log() -> tuple[np.ndarray, np.ndarray]:
    """Two groups of users with items 1 to 6 and 7 to 12."""
    random = np.random.default_rng(0)
    pairs = {
        (user, 1 + 6 * (user % 2) + int(item)) for user in range(60) for item in random.choice(6, 4, replace=False)
    }
    users, items = np.array(sorted(pairs)).T
    return users, items


@pytest.mark.parametrize("name", BASELINES)
def test_items_of_the_same_users_score_best(name: str, log: tuple[np.ndarray, np.ndarray]) -> None:
    baseline = BASELINES[name](*log, SIZE, 0)
    scores = baseline.scores(np.array([1, 2]), np.arange(SIZE))
    assert scores.shape == (SIZE,)
    assert scores[3:7].min() > scores[7:13].max()


def test_ease_has_a_zero_diagonal_and_negative_weights(
    log: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluation.baselines.EASE_PENALTY", 1.0)
    items = np.arange(1, SIZE)
    weights = np.stack([ease(*log, SIZE, 0).scores(np.array([item]), items) for item in items])
    positive = np.stack([ease_positive(*log, SIZE, 0).scores(np.array([item]), items) for item in items])
    assert np.diag(weights) == pytest.approx(np.zeros(SIZE - 1))
    assert (weights < 0).any()
    assert positive == pytest.approx(np.maximum(weights, 0.0))

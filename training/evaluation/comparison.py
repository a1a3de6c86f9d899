"""How much better one method is than another on the same queries, with an interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation.table import Row

DRAWS = 1000
INTERVAL = (2.5, 97.5)
Floats = npt.NDArray[np.float64]
FIGURES: dict[str, Callable[[Floats], Floats]] = {
    "mrr": lambda ranks: 1.0 / ranks,
    "recall@1": lambda ranks: (ranks <= 1).astype(np.float64),
    "recall@10": lambda ranks: (ranks <= 10).astype(np.float64),
}


@dataclass(frozen=True)
class Comparison:
    """Relative gain of one row over another; `low` and `high` bound 95 % of the bootstrap's draws."""

    name: str
    against: str
    figure: str
    gain: float
    low: float
    high: float

    def line(self) -> str:
        """Return the comparison as text."""
        return (
            f"{self.name} against {self.against}: {self.figure} {self.gain:+.1%} "
            f"(95 % of block bootstraps: {self.low:+.1%} to {self.high:+.1%})"
        )


def compared(row: Row, against: Row, blocks: npt.NDArray[np.int64], seed: int) -> list[Comparison]:
    """Return the gains of a row over another, queries of a block (an hour, a user) drawn together.

    Args:
        row, against: Ranks of the same Q queries.
        blocks: (Q,) block of each query.
        seed: Of the bootstrap.
    """
    random = np.random.default_rng(seed)
    _, block = np.unique(blocks, return_inverse=True)
    count = int(block.max(initial=-1)) + 1
    if not count:
        return []
    draws = random.multinomial(count, np.full(count, 1.0 / count), size=DRAWS)  # (DRAWS, blocks)
    comparisons = []
    for figure, gain_of in FIGURES.items():
        ours, theirs = (np.bincount(block, gain_of(np.array(each.ranks)), count) for each in (row, against))
        if not theirs.sum():
            continue
        gains = draws @ ours / np.maximum(draws @ theirs, 1e-12) - 1.0
        low, high = np.percentile(gains, INTERVAL)
        gain = float(ours.sum() / theirs.sum() - 1.0)
        comparisons.append(Comparison(row.name, against.name, figure, gain, float(low), float(high)))
    return comparisons

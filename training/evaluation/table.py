"""The result table: one row per method, figures over the same queries."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

CUTOFFS = (1, 3, 10, 20, 50)
NDCG_AT = 20


@dataclass
class Row:
    """Ranks and topic matches of one method.

    Attributes:
        ranks: Rank of the engaged item for each query, from 1.
        matches: On-topic share of what was possible in the top 50.
    """

    name: str
    ranks: list[float] = field(default_factory=list)
    matches: list[float] = field(default_factory=list)

    def add(self, rank: float, match: float = 1.0) -> None:
        """Note one query."""
        self.ranks.append(rank)
        self.matches.append(match)

    def of(self, chosen: npt.NDArray[np.bool_]) -> "Row":
        """Return the row over a part of its queries."""
        ranks, matches = np.array(self.ranks)[chosen], np.array(self.matches)[chosen]
        return Row(self.name, ranks.tolist(), matches.tolist())

    def figures(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON."""
        ranks = np.array(self.ranks)
        empty = not len(ranks)
        figures: dict[str, Any] = {"name": self.name, "queries": len(ranks)}
        for cutoff in CUTOFFS:
            figures[f"recall@{cutoff}"] = 0.0 if empty else float((ranks <= cutoff).mean())
        figures["mrr"] = 0.0 if empty else float((1.0 / ranks).mean())
        gains = np.where(ranks <= NDCG_AT, 1.0 / np.log2(1.0 + ranks), 0.0)
        figures[f"ndcg@{NDCG_AT}"] = 0.0 if empty else float(gains.mean())
        figures["topic_match@50"] = 0.0 if empty else float(np.mean(self.matches))
        return figures


def rendered(rows: Iterable[Row]) -> str:
    """Return the table as text."""
    lines = [f"{'':<28}{'R@1':>8}{'R@3':>8}{'R@10':>8}{'R@20':>8}{'R@50':>8}{'MRR':>8}{'NDCG@20':>9}{'match@50':>10}"]
    for row in rows:
        figures = row.figures()
        recalls = "".join(f"{figures[f'recall@{cutoff}']:>8.3f}" for cutoff in CUTOFFS)
        lines.append(
            f"{row.name:<28}{recalls}{figures['mrr']:>8.4f}{figures['ndcg@20']:>9.4f}{figures['topic_match@50']:>10.3f}"
        )
    return "\n".join(lines)

"""What `headwater evaluate` prints and writes."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from headwater.datafiles import EngagementTable
from headwater.durations import HOUR_MS
from headwater.errors import UsageError
from training.evaluation.comparison import Comparison, compared
from training.evaluation.popularity import WINDOWS_MS
from training.evaluation.ranking import Ranking
from training.evaluation.table import Row, rendered
from training.methods import CONDITIONAL, HELD_OUT, METHODS
from training.sampling import is_held_out

FORMAT = 3
AGES_H = (0, 1, 2, 4, 8, 12, 24)


def report(
    rankings: Mapping[str, Ranking], engagements: EngagementTable | None, json_path: Path | None, seed: int
) -> None:
    """Print a table for each width of topic, and for young items where the log is given; write the figures.

    Raises:
        UsageError: there is no query, or the file cannot be written.
    """
    if not any(ranking.asked_ms for ranking in rankings.values()):
        raise UsageError(
            "no query can be ranked: no engagement is a user's first with an item that has a topic and is a candidate then"
        )
    document: dict[str, Any] = {"format": FORMAT}
    first_ms = engagements.first_engaged_ms() if engagements is not None else None
    for width, ranking in rankings.items():
        part = _reported(width, ranking, seed)
        if first_ms is not None:
            ages_ms = _ages_ms(ranking, first_ms)
            part |= {"young": _young(ranking, ages_ms), "by_age": _by_age(ranking, ages_ms)}
        if {CONDITIONAL, HELD_OUT} <= ranking.rows.keys():
            part["held_out"] = _held_out(ranking)
        document = document | part if width == "fine" else document | {width: part}
    if json_path is not None:
        try:
            json_path.write_text(json.dumps(document, indent=2), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--json {json_path}: {error.strerror}") from None


def _reported(width: str, ranking: Ranking, seed: int) -> dict[str, Any]:
    rows = list(ranking.rows.values())
    if width != "fine":
        click.echo(f"\n{width} topics:")
    click.echo(rendered(rows))
    if ranking.skipped:
        click.echo(f"{ranking.skipped} queries left out: the engaged item was no candidate any more")
    comparisons = _comparisons(ranking, rows, seed)
    for comparison in comparisons:
        click.echo(comparison.line())
    return {
        "rows": [row.figures() for row in rows],
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def _comparisons(ranking: Ranking, rows: list[Row], seed: int) -> list[Comparison]:
    """Return the gains over the best popularity window, hours drawn as blocks."""
    popularity = [row for row in rows if row.name in WINDOWS_MS]
    best = max(popularity, key=lambda row: row.figures()["mrr"])
    hours = np.array(ranking.asked_ms, dtype=np.int64) // HOUR_MS
    return [each for row in rows if row.name not in WINDOWS_MS for each in compared(row, best, hours, seed)]


def _held_out(ranking: Ranking) -> list[dict[str, Any]]:
    """Return the rows over topics that one method never asked for in training."""
    chosen = is_held_out(np.array(ranking.conditions, dtype=np.int64), METHODS[HELD_OUT]["held_out"])
    rows = [ranking.row(name).of(chosen) for name in (CONDITIONAL, HELD_OUT)]
    click.echo(f"{int(chosen.sum())} of these for topics that {HELD_OUT} never asked for in training:")
    click.echo(rendered(rows))
    return [row.figures() for row in rows]


def _ages_ms(ranking: Ranking, first_ms: dict[str, int]) -> npt.NDArray[np.int64]:
    """Return how long before each query its item was first engaged with."""
    known = ranking.corpus.items
    ages = [
        asked - first_ms[known[item - 1].item_id] for asked, item in zip(ranking.asked_ms, ranking.items, strict=True)
    ]
    return np.array(ages, dtype=np.int64)


def _young(ranking: Ranking, ages_ms: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the rows over items whose first engagement was less than an hour ago."""
    young = ages_ms < HOUR_MS
    rows = [row.of(young) for row in ranking.rows.values()]
    if young.any():
        click.echo(f"{int(young.sum())} of these on items first engaged with less than an hour ago:")
        click.echo(rendered(rows))
    return [row.figures() for row in rows]


def _by_age(ranking: Ranking, ages_ms: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the rows over items of each age, from the youngest."""
    hours = ages_ms // HOUR_MS
    spans = [(hours >= begin) & (hours < end) for begin, end in pairwise((*AGES_H, np.inf))]
    return [
        {"from_h": begin, "rows": [row.of(span).figures() for row in ranking.rows.values()]}
        for begin, span in zip(AGES_H, spans, strict=True)
        if span.any()
    ]

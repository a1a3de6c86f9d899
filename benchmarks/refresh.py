"""Refreshing a model: `python -m benchmarks.refresh`.

A trainer learns from 100,000 news clicks, then refreshes after every 10 minutes' worth of them, as `headwater train
--every 10m` does, stream worker and server on the same machine and idle.
"""

import json
import statistics
from itertools import pairwise
from typing import Any

import click

from benchmarks.harness import RUNS, installed, news, record
from training.batches import LearningSettings
from training.learner import use_half_of_the_cores
from training.refresh import Trainer

EVENTS = 100_000
WINDOW_MS = 600_000
STAGES = ("read", "train", "rank", "export", "rotate", "total")


@click.command()
@click.option("--runs", default=RUNS, show_default=True, type=click.IntRange(1), help="Refreshes after the first.")
def main(runs: int) -> None:
    """Measure and keep the figures."""
    use_half_of_the_cores()
    data = news()
    end_ms = data.until(EVENTS)
    with installed() as installation:
        installation.stream_in(data, end_ms)
        learning = LearningSettings(live_for_ms=installation.settings.max_item_age_s * 1000 or None)
        trainer = Trainer(installation.settings, learning)
        first = _refreshed(trainer)
        installation.server.wait_ready()
        found = []
        for begin_ms in range(end_ms, end_ms + runs * WINDOW_MS, WINDOW_MS):
            installation.stream_in(data, begin_ms + WINDOW_MS, begin_ms, begin_ms)
            found.append(_refreshed(trainer))
    figures: dict[str, Any] = {
        "runs": runs,
        "first": {"examples": first["examples"], **first["took_s"]},
        "examples_per_s": round(first["examples"] / first["took_s"]["train"]),
        "examples": round(statistics.median(each["examples"] for each in found)),
        **{f"{stage}_s": round(statistics.median(each["took_s"][stage] for each in found), 2) for stage in STAGES},
    }
    figures["until_exported_s"] = round(
        statistics.median(each["took_s"]["total"] - each["took_s"]["rotate"] for each in found), 2
    )
    click.echo(json.dumps(figures, indent=1))
    record("refresh", figures)


def _refreshed(trainer: Trainer) -> dict[str, Any]:
    """Refresh once; return the run record, with what each stage took."""
    run = trainer.refresh()
    assert run is not None
    assert run["promoted"], run["reasons"]
    until = {"begin": 0.0, **run["seconds"]}
    took = {after: until[after] - until[before] for before, after in pairwise(until)}
    return {**run, "took_s": {**took, "rotate": took["total"], "total": until["total"]}}


if __name__ == "__main__":
    main()

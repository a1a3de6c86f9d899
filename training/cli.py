"""`headwater train` and `headwater evaluate`."""

import json
import logging
import math
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from tqdm import tqdm

from headwater.datafiles import EngagementTable, read_engagements, read_items
from headwater.errors import HeadwaterError, UsageError
from headwater.events import Item
from headwater.logs import set_up_logging
from headwater.options import parse_duration, parse_instant
from headwater.reachable import redis_reachable
from headwater.replay import known_by
from headwater.settings import Settings, read_settings
from training.batches import LearningSettings
from training.evaluation.leave_last_out import evaluate_leave_last_out
from training.evaluation.prequential import Schedule, evaluate_prequential
from training.evaluation.report import report
from training.learner import use_half_of_the_cores
from training.methods import CONDITIONAL, DEFAULT, METHODS, SERVABLE, methods_for
from training.refresh import Trainer
from training.staging import exclusive_directory

PREQUENTIAL = ("warmup_until", "until", "refresh", "live_for", "coarse_topics", "behind", "strengths")
"""Options of `evaluate` for the prequential protocol alone."""
FIRST_RETRY_S = 15.0
"""Time between refreshes at most until there is a first model."""
MAX_SEED = 2**63 - 1
"""The largest seed that torch takes."""

log = logging.getLogger(__name__)


class Bars:
    """Shows a progress bar per stage, none if hidden or without a terminal."""

    def __init__(self, hidden: bool) -> None:
        self._hidden = hidden
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._hidden:
            return
        if self._bar is None or self._bar.desc != stage:
            self.close()
            self._bar = tqdm(total=total, desc=stage, disable=None, leave=False)
            self._bar.desc = stage
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


@click.command()
@click.option("--once", is_flag=True, help="One refresh, then end.")
@click.option("--every", metavar="TIME", help="A refresh every so often, e.g. 10m.")
@click.option("--no-promote", is_flag=True, help="Publish the bundle, leave the alias alone.")
@click.option("--method", type=click.Choice(SERVABLE), default=CONDITIONAL, show_default=True, metavar="NAME")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print each run record as one line of JSON, no progress.")
def train(once: bool, every: str | None, no_promote: bool, method: str, seed: int, as_json: bool) -> None:
    """Train on the log since the last refresh, publish a bundle, promote it if it is good enough."""
    if once == (every is not None):
        raise UsageError("give either --once or --every TIME")
    every_ms = parse_duration("--every", every) if every else 0
    settings = read_settings()
    set_up_logging(settings)
    with redis_reachable(settings) as check:
        check()
    use_half_of_the_cores()
    bars = Bars(hidden=as_json)
    live_for_ms = settings.max_item_age_s * 1000 or None
    learning = LearningSettings(seed=seed, live_for_ms=live_for_ms, **METHODS[method])
    with exclusive_directory(settings.state_dir / "training"):
        trainer = Trainer(settings, learning, bars)
        if once:
            with redis_reachable(settings):
                _say(trainer.refresh(not no_promote), as_json)
            bars.close()
        else:
            _keep_refreshing(trainer, settings, every_ms, not no_promote, as_json)


def _keep_refreshing(trainer: Trainer, settings: Settings, every_ms: int, promote: bool, as_json: bool) -> None:
    """Refresh at once and then every so often; until there is a first model, try more often."""
    stop, every_s = threading.Event(), every_ms / 1000
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    wait_s, problem = 0.0, ""
    while not stop.wait(wait_s):
        try:
            with redis_reachable(settings):
                _say(trainer.refresh(promote), as_json)
            problem = ""
        except HeadwaterError as error:
            level = logging.DEBUG if str(error) == problem else logging.WARNING
            problem = str(error)
            log.log(level, "no refresh this time: %s", problem)
        wait_s = every_s if trainer.learner else min(every_s, FIRST_RETRY_S)


def _say(record: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record or {"version": None}))
    elif record is None:
        click.echo("nothing new in the log")
    else:
        verb = "promoted" if record["promoted"] else "published, not promoted"
        click.echo(f"{record['version']}: {record['examples']} examples, {verb}, {record['seconds']['total']} s")
        for reason in record["reasons"]:
            click.echo(f"  {reason}")


@click.command()
@click.option("--engagements", required=True, type=click.Path(path_type=Path), help="Parquet, CSV or JSONL.")
@click.option("--items", required=True, type=click.Path(path_type=Path), help="Parquet, CSV or JSONL.")
@click.option(
    "--protocol", type=click.Choice(["prequential", "leave-last-out"]), default="prequential", show_default=True
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--since", metavar="TIME", help="Leave out earlier engagements.")
@click.option("--warmup-until", metavar="TIME", help="Queries begin here; default: two thirds into the log.")
@click.option("--until", metavar="TIME", help="Queries end here; default: the end of the log.")
@click.option("--refresh", default="10m", show_default=True, help="10m, 1h, 1d … or never.")
@click.option(
    "--live-for",
    default="1d",
    show_default=True,
    help="Items stay candidates this long after publication or engagement.",
)
@click.option("--max-queries", type=click.IntRange(min=1), default=50_000, show_default=True)
@click.option(
    "--coarse-topics",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Ask for this many groups of topics with common readers, too (prequential).",
)
@click.option("--behind", metavar="TIME", help="Counts lag this far behind each query; needs --refresh never.")
@click.option("--methods", default=",".join(DEFAULT), show_default=True, help="Comma-separated; `all` for every one.")
@click.option(
    "--strengths", default="", metavar="X,Y", help="Rows with conditions that pull so many times as strongly."
)
@click.option(
    "--untrained",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    show_default=True,
    help="Train on no item of this share of the topics and ask for those items alone (leave-last-out).",
)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
def evaluate(
    engagements: Path,
    items: Path,
    protocol: str,
    json_path: Path | None,
    since: str | None,
    warmup_until: str | None,
    until: str | None,
    refresh: str,
    live_for: str,
    max_queries: int,
    coarse_topics: int,
    behind: str | None,
    methods: str,
    strengths: str,
    untrained: float,
    seed: int,
) -> None:
    """Compare conditional retrieval with popularity and learned retrieval on data files."""
    if protocol == "leave-last-out":
        _refuse_given(PREQUENTIAL)
    if json_path is not None:
        _require_writable(json_path)
    refresh_ms, live_for_ms, behind_ms = _times(refresh, live_for, behind)
    if untrained and protocol != "leave-last-out":
        raise UsageError("--untrained needs --protocol leave-last-out")
    warmup_ms, until_ms = parse_instant("--warmup-until", warmup_until), parse_instant("--until", until)
    table, catalogue = _data(engagements, items, parse_instant("--since", since) or 0)
    learning, bars = LearningSettings(seed=seed, live_for_ms=live_for_ms), Bars(hidden=False)
    compared = methods_for(catalogue) if methods == "all" else methods.split(",")
    if protocol == "leave-last-out":
        found = evaluate_leave_last_out(table, catalogue, max_queries, learning, bars, compared, untrained=untrained)
        rankings = {"fine": found}
    else:
        schedule = Schedule(
            warmup_until_ms=warmup_ms or _two_thirds_ms(table),
            until_ms=until_ms or int(table.occurred_ms[-1]) + 1,
            refresh_ms=refresh_ms,
            max_queries=max_queries,
            coarse_topics=coarse_topics,
            behind_ms=behind_ms,
            methods=compared,
            strengths=_strengths(strengths, compared),
            seed=seed,
        )
        if not table.occurred_ms[0] < schedule.warmup_until_ms < schedule.until_ms:
            raise UsageError("--warmup-until must lie between the first engagement and --until")
        rankings = evaluate_prequential(table, catalogue, schedule, learning, bars)
    bars.close()
    report(rankings, table if protocol == "prequential" else None, json_path, seed)


def _refuse_given(parameters: Iterable[str]) -> None:
    source = click.get_current_context().get_parameter_source
    given = [name.replace("_", "-") for name in parameters if source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(f"--{given[0]} needs --protocol prequential")


def _times(refresh: str, live_for: str, behind: str | None) -> tuple[int | None, int, int]:
    """Return `--refresh` (None for never), `--live-for` and `--behind` in milliseconds."""
    refresh_ms = None if refresh == "never" else parse_duration("--refresh", refresh)
    live_for_ms = parse_duration("--live-for", live_for)
    behind_ms = parse_duration("--behind", behind) if behind else 0
    if behind_ms and refresh_ms:
        raise UsageError("--behind needs --refresh never: a refresh brings all counts up to date")
    return refresh_ms, live_for_ms, behind_ms


def _data(engagements: Path, items: Path, since_ms: int) -> tuple[EngagementTable, list[Item]]:
    table = read_engagements(engagements).since(since_ms)
    if len(table) < 2:
        raise UsageError(f"{engagements}: {len(table)} engagements are too few to evaluate on")
    return table, known_by(read_items(items), table)


def _two_thirds_ms(table: EngagementTable) -> int:
    first, last = int(table.occurred_ms[0]), int(table.occurred_ms[-1]) + 1
    return first + (last - first) * 2 // 3


def _require_writable(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--json {path}: cannot be written")


def _strengths(listed: str, methods: list[str]) -> list[float]:
    try:
        strengths = [float(each) for each in listed.split(",") if each]
    except ValueError:
        strengths = [math.nan]
    if not all(map(math.isfinite, strengths)):
        raise UsageError(f"--strengths takes numbers with commas between them, not {listed!r}")
    if strengths and CONDITIONAL not in methods:
        raise UsageError(f"--strengths needs the method {CONDITIONAL}")
    return strengths

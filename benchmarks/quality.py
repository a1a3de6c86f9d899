"""Retrieval quality on real data, with seeds and intervals: `python -m benchmarks.quality [NAME …]`.

Each experiment is one `headwater evaluate` command a seed, whose figures are kept in `benchmarks/results/quality/`;
`benchmarks/results/quality.md` and its plot show all that were run. Needs the data in `../shared/data`.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl

from headwater.errors import UsageError

mpl.use("Agg")
from matplotlib import pyplot as plt

DATA = Path("../shared/data")
RESULTS = Path(__file__).parent / "results"
FIGURES = RESULTS / "quality"
NEWS = ("--engagements", f"{DATA}/globo/engagements.parquet", "--items", f"{DATA}/globo/items.parquet")
MOVIES = ("--engagements", f"{DATA}/ml-latest-small/ratings.csv", "--items", f"{DATA}/ml-latest-small/movies.csv")
REPORT_DAYS = ("--warmup-until", "2017-10-11", "--until", "2017-10-13")
DEVELOPMENT_DAY = ("--since", "2017-10-07", "--warmup-until", "2017-10-09", "--until", "2017-10-10")
SEEDS = (0, 1, 2)
TEXT_METHODS = "conditional,ids-none,text-codes,text-codes-and-ids"
COLUMNS = ("recall@1", "recall@3", "recall@10", "recall@20", "recall@50", "mrr", "ndcg@20", "topic_match@50")


@dataclass(frozen=True)
class Experiment:
    """A comparison of methods on the same queries."""

    name: str
    title: str
    arguments: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS

    def command(self, seed: int) -> list[str]:
        """Return what is run, without the place of the figures."""
        return ["headwater", "evaluate", *self.arguments, "--seed", str(seed)]

    def path(self, seed: int) -> Path:
        """Return where the figures are kept."""
        return FIGURES / f"{self.name}-seed{seed}.json"


EXPERIMENTS = (
    Experiment(
        "news",
        "News clicks, 11 and 12 October, parameters refreshed every 10 minutes",
        (*NEWS, *REPORT_DAYS, "--refresh", "10m", "--coarse-topics", "15", "--max-queries", "20000"),
    ),
    *(
        Experiment(
            f"news-{refresh}",
            f"The same with live features and parameters refreshed: {refresh}",
            (*NEWS, *REPORT_DAYS, "--refresh", refresh, "--max-queries", "10000", "--methods", "conditional"),
            seeds=(0,),
        )
        for refresh in ("1m", "10m", "1h", "1d", "never")
    ),
    Experiment(
        "strengths",
        "Relevance against engagement: how strongly the condition pulls, on a development day",
        (
            *(*NEWS, *DEVELOPMENT_DAY, "--coarse-topics", "15", "--max-queries", "4000"),
            *("--methods", "conditional", "--strengths", "0,0.25,0.5,0.75,1.5,2"),
        ),
        seeds=(0,),
    ),
    Experiment(
        "second-stage",
        "A second stage over the best 200 of a topic, and lists of all topics merged, on a development day",
        (
            *(*NEWS, *DEVELOPMENT_DAY, "--coarse-topics", "15", "--max-queries", "6000"),
            *("--methods", "conditional,second-stage"),
        ),
        seeds=(0,),
    ),
    Experiment(
        "second-stage-report",
        "The second stage on 11 and 12 October, with parameters refreshed every hour",
        (
            *(*NEWS, *REPORT_DAYS, "--refresh", "1h", "--coarse-topics", "15", "--max-queries", "10000"),
            *("--methods", "conditional,second-stage"),
        ),
        seeds=(0,),
    ),
    Experiment(
        "held-out",
        "Topics that training never asked for, on a development day",
        (
            *(*NEWS, *DEVELOPMENT_DAY, "--coarse-topics", "15", "--max-queries", "8000"),
            *("--methods", "conditional,held-out-topics"),
        ),
    ),
    Experiment(
        "ages",
        "By the age of the item, on a development day",
        (*NEWS, *DEVELOPMENT_DAY, "--coarse-topics", "15", "--max-queries", "20000"),
        seeds=(0,),
    ),
    *(
        Experiment(
            f"behind-{behind}",
            f"A development day, parameters never refreshed, all counts {behind} old",
            (*NEWS, *DEVELOPMENT_DAY, "--refresh", "never", "--max-queries", "6000", "--behind", behind),
            seeds=(0,),
        )
        for behind in ("1s", "1m", "10m", "1h")
    ),
    Experiment(
        "methods",
        "Every method on a development day: news clicks of 9 October after two days' warm-up",
        (*NEWS, *DEVELOPMENT_DAY, "--coarse-topics", "15", "--max-queries", "4000", "--methods", "all"),
        seeds=(0,),
    ),
    Experiment(
        "movies", "MovieLens latest-small, each user's last film held out", (*MOVIES, "--protocol", "leave-last-out")
    ),
    Experiment(
        "movies-text",
        "The same with codes of the films' titles",
        (*MOVIES, "--protocol", "leave-last-out", "--methods", TEXT_METHODS),
    ),
    Experiment(
        "movies-untrained",
        "The same, half of the genres untrained: only films whose first genre is one of them are asked for",
        (*MOVIES, "--protocol", "leave-last-out", "--methods", TEXT_METHODS, "--untrained", "0.5"),
        seeds=(0,),
    ),
)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", type=click.IntRange(1, len(SEEDS)), default=len(SEEDS), show_default=True)
@click.option("--render", is_flag=True, help="Only write the page again.")
def main(names: tuple[str, ...], seeds: int, render: bool) -> None:
    """Run experiments, all of them unless NAMES are given, and write the page."""
    unknown = set(names) - {each.name for each in EXPERIMENTS}
    if unknown:
        raise UsageError(
            f"no experiment {', '.join(unknown)}; there are {', '.join(each.name for each in EXPERIMENTS)}"
        )
    if not render:
        for experiment in EXPERIMENTS:
            if not names or experiment.name in names:
                for seed in experiment.seeds[:seeds]:
                    run(experiment, seed)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality.md").write_text(page(), encoding="utf-8")


def run(experiment: Experiment, seed: int) -> None:
    """Run one experiment with one seed and keep its figures."""
    if not DATA.is_dir():
        raise UsageError(f"{DATA} is absent: the experiments run on real data")
    FIGURES.mkdir(parents=True, exist_ok=True)
    command, path, started = experiment.command(seed), experiment.path(seed), time.monotonic()
    click.echo(" ".join(command), err=True)
    subprocess.run([sys.executable, "-m", *command, "--json", str(path)], check=True)
    document = json.loads(path.read_text(encoding="utf-8"))
    document |= {"command": " ".join(command), "seconds": round(time.monotonic() - started)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def page() -> str:
    """Return the page of all experiments that were run."""
    parts = [
        "# Retrieval quality",
        "",
        "Generated by `python -m benchmarks.quality --render` from the figures in `quality/`.",
    ]
    for experiment in EXPERIMENTS:
        runs = {
            seed: json.loads(experiment.path(seed).read_text()) for seed in SEEDS if experiment.path(seed).is_file()
        }
        if runs:
            first = runs[min(runs)]
            parts += ["", f"## {experiment.title}", ""]
            parts += _tables(list(runs.values()))
            if experiment.name in PLOTS:
                name = f"quality-{experiment.name}.png"
                PLOTS[experiment.name](first, RESULTS / name)
                parts += ["", f"![{experiment.title}]({name})"]
            seeds = ", ".join(map(str, runs))
            # A run that was suspended does not say how long it took.
            seconds = [run["seconds"] for run in runs.values() if "seconds" in run]
            took = f"; {statistics.median(seconds):.0f} s a run" if seconds else ""
            parts += ["", f"Seeds {seeds}; medians over the seeds{took}: `{first['command']}`"]
    return "\n".join(parts) + "\n"


def _tables(runs: list[dict[str, Any]]) -> list[str]:
    lines = _table([run["rows"] for run in runs])
    if "coarse" in runs[0]:
        lines += ["", "Asked for coarse topics:", "", *_table([run["coarse"]["rows"] for run in runs])]
    if "young" in runs[0]:
        lines += ["", "Items first engaged with less than an hour before:", "", *_table([run["young"] for run in runs])]
    if "held_out" in runs[0]:
        lines += ["", "Topics that `held-out-topics` never asked for in training:", ""]
        lines += _table([run["held_out"] for run in runs])
    lines += ["", *_gains("fine", runs)]
    if "coarse" in runs[0]:
        lines += ["", *_gains("coarse", [run["coarse"] for run in runs])]
    return lines


def _table(runs: list[list[dict[str, Any]]]) -> list[str]:
    lines = ["| | queries | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for rows in zip(*runs, strict=True):
        figures = [f"{statistics.median(row[column] for row in rows):.4f}" for column in COLUMNS]
        lines.append(f"| {rows[0]['name']} | {rows[0]['queries']} | " + " | ".join(figures) + " |")
    return lines


def _gains(width: str, parts: list[dict[str, Any]]) -> list[str]:
    """Return the gains of each method that keeps to the topic: all seeds, and where the interval of each of them lies."""
    figures = ("mrr", "recall@1", "recall@10")
    lines = [f"| gain over the best popularity window, {width} | " + " | ".join(figures) + " |", "|---|---|---|---|"]
    gains = [{(each["name"], each["figure"]): each for each in part["comparisons"]} for part in parts]
    names = dict.fromkeys(each["name"] for each in parts[0]["comparisons"])
    for name in names:
        cells = []
        for figure in figures:
            found = [part[name, figure] for part in gains]
            seeds = ", ".join(f"{each['gain']:+.1%}" for each in found)
            low, high = min(each["low"] for each in found), max(each["high"] for each in found)
            cells.append(f"{seeds} ({low:+.1%} … {high:+.1%})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _plot_gains(document: dict[str, Any], path: Path) -> None:
    parts = {"fine": document["comparisons"], "coarse": document["coarse"]["comparisons"]}
    bars = [
        (f"{each['name']}\n{each['figure']}, {width}", each)
        for width, comparisons in parts.items()
        for each in comparisons
        if each["name"] in PLOTTED and (each["figure"] != "recall@10" or width == "coarse")
    ]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(bars) + 1), layout="constrained")
    gains = [100 * each["gain"] for _, each in bars]
    spread = [
        [100 * (each["gain"] - each["low"]) for _, each in bars],
        [100 * (each["high"] - each["gain"]) for _, each in bars],
    ]
    axes.barh([name for name, _ in bars], gains, xerr=spread, color="#3b6ea5", ecolor="#222222", capsize=2)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("gain over the best popularity window, %, with 95 % of hour-block bootstraps")
    axes.tick_params(axis="y", labelsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_methods(document: dict[str, Any], path: Path) -> None:
    """Draw every method without a filter, narrow topics beside coarse ones."""
    shown = {"fine": document["rows"], "coarse": document["coarse"]["rows"]}
    names = [
        row["name"] for row in document["rows"] if "+" not in row["name"] or row["name"] == "learned-retrieval+filter"
    ]
    figure, columns = plt.subplots(1, 2, sharey=True, figsize=(10, 0.26 * len(names) + 1), layout="constrained")
    for axes, (width, rows) in zip(columns, shown.items(), strict=True):
        mrr = {row["name"]: row["mrr"] for row in rows}
        values = [mrr[name] for name in names]
        axes.barh(names, values, color=["#c56a3b" if name == "conditional" else "#3b6ea5" for name in names])
        axes.set_xlim(0.8 * mrr["popularity-1h"], 1.05 * max(values))
        axes.set_xlabel(f"MRR, {width} topics; the axis starts at 80 % of popularity")
        axes.tick_params(axis="y", labelsize=7)
    columns[0].invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _strength(row: dict[str, Any]) -> str:
    strength: str = (row["name"] + "*1").split("*")[1]
    return strength


def _plot_strengths(document: dict[str, Any], path: Path) -> None:
    """Draw topic match against recall as the condition pulls more strongly."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for width, rows in (("fine", document["rows"]), ("coarse", document["coarse"]["rows"])):
        points = [row for row in rows if row["name"].startswith("conditional") and "+" not in row["name"]]
        points.sort(key=lambda row: float(_strength(row)))
        axes.plot([row["topic_match@50"] for row in points], [row["recall@10"] for row in points], "o-", label=width)
        for row in points:
            axes.annotate(
                _strength(row),
                (row["topic_match@50"], row["recall@10"]),
                textcoords="offset points",
                xytext=(4, -9),
                fontsize=7,
            )
    axes.set_xlabel("topic match@50 without a filter (relevance)")
    axes.set_ylabel("R@10 (engagement)")
    axes.legend(title="topics; the number is the strength")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_ages(document: dict[str, Any], path: Path) -> None:
    """Draw R@10 over the time since the item's first engagement."""
    figure, columns = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, (width, part) in zip(columns, (("fine", document), ("coarse", document["coarse"])), strict=True):
        labels = [f"{each['from_h']} h, {each['rows'][0]['queries']}" for each in part["by_age"]]
        for name in AGED:
            found = [next(row for row in each["rows"] if row["name"] == name) for each in part["by_age"]]
            axes.plot(labels, [row["recall@10"] for row in found], "o-", label=name)
        axes.set_xlabel(f"hours since the first engagement from, queries; {width} topics")
        axes.set_ylabel("R@10")
        axes.tick_params(axis="x", labelsize=7)
    columns[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


AGED = ("popularity-10m", "popularity-1h", "learned-retrieval+filter", "conditional")
PLOTTED = ("conditional", "conditional+filter", "learned-retrieval+filter")
PLOTS = {"news": _plot_gains, "methods": _plot_methods, "strengths": _plot_strengths, "ages": _plot_ages}


if __name__ == "__main__":
    main()

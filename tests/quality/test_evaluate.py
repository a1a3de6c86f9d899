"""`headwater evaluate` on files, both protocols, and on the real data where it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.durations import HOUR_MS
from headwater.events import Engagement, Item
from headwater.simulator import World
from training.evaluation.baselines import BASELINES

ROWS = [
    "popularity-10m",
    "popularity-1h",
    "popularity-3h",
    "popularity-24h",
    "co-visitation",
    "co-visitation+filter",
    "learned-retrieval",
    "learned-retrieval+overfetch200",
    "learned-retrieval+filter",
    "conditional",
    "conditional+filter",
    "conditional+merged",
]
FIGURES = {"name", "queries", "mrr", "ndcg@20", "topic_match@50", *(f"recall@{k}" for k in (1, 3, 10, 20, 50))}


def evaluate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-m", "headwater", "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("world")
    engagements, items = ["user_id,item_id,occurred_at_ms"], ["item_id,topics,published_at_ms"]
    world = World(seed=2, users=300, topics=8, items_per_hour=40, engagements_per_hour=3000)
    for event in world.step(2 * HOUR_MS):
        if isinstance(event, Engagement):
            engagements.append(f"{event.user_id},{event.item_id},{event.occurred_at}")
        else:
            assert isinstance(event, Item)
            items.append(f"{event.item_id},{'|'.join(event.topics)},{event.published_at}")
    (directory / "engagements.csv").write_text("\n".join(engagements))
    (directory / "items.csv").write_text("\n".join(items))
    return str(directory / "engagements.csv"), str(directory / "items.csv")


@pytest.mark.parametrize("protocol", ["prequential", "leave-last-out"])
def test_the_table_and_its_json(files: tuple[str, str], tmp_path: Path, protocol: str) -> None:
    path = tmp_path / "out.json"
    done = evaluate(
        "--engagements",
        files[0],
        "--items",
        files[1],
        "--protocol",
        protocol,
        "--json",
        str(path),
        "--max-queries",
        "300",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    baselines = [f"{name}{ending}" for name in BASELINES for ending in ("", "+filter")]
    expected = [*ROWS[:4], *(baselines if protocol == "leave-last-out" else []), *ROWS[4:]]
    assert [row["name"] for row in rows] == expected
    assert all(set(row) == FIGURES for row in rows)
    assert len({row["queries"] for row in rows}) == 1
    by_name = {row["name"]: row for row in rows}
    assert by_name["conditional"]["topic_match@50"] > 0.8
    assert by_name["popularity-1h"]["topic_match@50"] == 1.0
    assert by_name["learned-retrieval"]["mrr"] <= by_name["learned-retrieval+filter"]["mrr"]
    assert all(name in done.stdout for name in expected)


def test_untrained_topics_and_codes_of_texts(files: tuple[str, str], tmp_path: Path) -> None:
    header, *rows = Path(files[1]).read_text().splitlines()
    titled = [f"{header},title", *(f"{row},News of {row.split(',')[1]}" for row in rows)]
    (tmp_path / "items.csv").write_text("\n".join(titled))
    queries = []
    for untrained in ("0", "0.5"):
        path = tmp_path / f"{untrained}.json"
        given = ("--engagements", files[0], "--items", str(tmp_path / "items.csv"), "--protocol", "leave-last-out")
        options = ("--methods", "text-codes", "--untrained", untrained, "--json", str(path))
        done = evaluate(*given, *options)
        assert done.returncode == 0, done.stderr
        by_name = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
        assert by_name["text-codes+filter"]["mrr"] > 0
        queries.append(by_name["text-codes"]["queries"])
    assert 0 < queries[1] < queries[0]


def test_methods_and_protocols_that_do_not_fit_are_told(files: tuple[str, str]) -> None:
    given = ("--engagements", files[0], "--items", files[1])
    for options, told in (
        (("--methods", "text-codes"), "no attribute of any item is a string"),
        (("--untrained", "0.5"), "--untrained needs --protocol leave-last-out"),
    ):
        done = evaluate(*given, *options)
        assert done.returncode == 2
        assert told in done.stderr


def test_impossible_times_are_told(files: tuple[str, str]) -> None:
    done = evaluate("--engagements", files[0], "--items", files[1], "--warmup-until", "2035-01-01")
    assert done.returncode == 2
    assert "--warmup-until must lie between" in done.stderr

"""`headwater evaluate` reports mistakes before it trains, and what its protocols count."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from headwater.datafiles import EngagementTable
from headwater.durations import HOUR_MS
from headwater.errors import UsageError
from headwater.events import MAX_TOPICS_PER_ITEM, Item
from training.batches import LearningSettings
from training.cli import MAX_SEED, evaluate, train
from training.corpus import Corpus
from training.evaluation import leave_last_out
from training.evaluation.baselines import BASELINES, installed_baselines
from training.evaluation.coarse import with_coarse_topics
from training.evaluation.leave_last_out import evaluate_leave_last_out
from training.methods import HELD_OUT

T0 = 1_700_000_000_000
LEARNING = LearningSettings()


def nobody(stage: str, done: int, total: int) -> None:
    """Take no notice of progress."""


def item(item_id: str, *topics: str) -> Item:
    return Item(item_id=item_id, topics=topics, published_at=T0)


def table(*rows: tuple[str, str]) -> EngagementTable:
    """Return engagements of (user, item), a minute apart."""
    users, items = np.array(rows, dtype=object).T
    times = T0 + 60_000 * np.arange(1, len(rows) + 1)
    return EngagementTable(users, items, times, [f"e{n}" for n in range(len(rows))], ["click"] * len(rows))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Options for a log whose last third holds nothing but repeats."""
    rows = [f"u{n % 4},i{n % 8},{T0 + n * HOUR_MS}" for n in range(1, 40)]
    (tmp_path / "engagements.csv").write_text("\n".join(["user_id,item_id,occurred_at_ms", *rows]))
    (tmp_path / "items.csv").write_text(
        "\n".join(["item_id,topic,published_at_ms", *(f"i{n},t{n % 2},{T0}" for n in range(8))])
    )
    return "--engagements", str(tmp_path / "engagements.csv"), "--items", str(tmp_path / "items.csv")


def mistake(*arguments: str) -> str:
    """Return what is said about a command that ends in a mistake."""
    result = CliRunner().invoke(evaluate, arguments)
    assert isinstance(result.exception, UsageError), result.exception
    return str(result.exception)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--until", "2024-01-01"),
        ("--warmup-until", "2024-01-01"),
        ("--refresh", "1h"),
        ("--live-for", "2d"),
        ("--coarse-topics", "3"),
        ("--behind", "1m"),
        ("--strengths", "2"),
    ],
)
def test_leave_last_out_refuses_what_it_would_ignore(files: tuple[str, ...], option: str, value: str) -> None:
    told = mistake(*files, "--protocol", "leave-last-out", option, value)
    assert told == f"{option} needs --protocol prequential"


def test_a_file_that_cannot_be_written_is_told_before_anything_is_read(tmp_path: Path) -> None:
    given = ("--engagements", "none.csv", "--items", "none.csv", "--json")
    assert "cannot be written" in mistake(*given, str(tmp_path / "absent" / "out.json"))
    assert "cannot be written" in mistake(*given, str(tmp_path))


def test_no_query_is_told(files: tuple[str, ...]) -> None:
    assert "no query can be ranked" in mistake(*files)


def test_a_method_can_be_evaluated_alone(files: tuple[str, ...]) -> None:
    result = CliRunner().invoke(evaluate, [*files, "--protocol", "leave-last-out", "--methods", HELD_OUT])
    assert result.exception is None
    assert HELD_OUT in result.output


@pytest.mark.parametrize("command", [evaluate, train])
@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_seeds_are_not_negative_and_fit(command: Any, seed: str, files: tuple[str, ...]) -> None:
    result = CliRunner().invoke(command, [*(files if command is evaluate else ("--once",)), "--seed", seed])
    assert result.exit_code == 2
    assert f"{seed} is not in the range" in result.output


def test_the_largest_seed_is_taken(files: tuple[str, ...]) -> None:
    given = [*files, "--protocol", "leave-last-out", "--methods", HELD_OUT, "--seed", str(MAX_SEED)]
    assert CliRunner().invoke(evaluate, given).exception is None


@pytest.mark.parametrize("strengths", ["nan", "1,inf", "x"])
def test_strengths_are_finite(strengths: str, files: tuple[str, ...]) -> None:
    assert "--strengths takes numbers" in mistake(*files, "--strengths", strengths)


def test_coarse_topics_stand_second() -> None:
    items = [item("a", "x", "y", "z"), item("b", "y"), item("c")]
    engaged = table(("u", "a"), ("u", "b"), ("v", "a"))
    first, second, third = with_coarse_topics(items, engaged, T0 + HOUR_MS, 1, 0)
    assert first.topics == ("x", "coarse-0", "y", "z")
    assert second.topics == ("y", "coarse-0")
    assert third == items[2]


def test_with_a_coarse_topic_an_item_has_no_more_topics_than_it_may() -> None:
    full = item("a", *(f"t{number}" for number in range(MAX_TOPICS_PER_ITEM)))
    engaged = table(("u", "a"), ("v", "a"))
    (coarse,) = with_coarse_topics([full], engaged, T0 + HOUR_MS, 1, 0)
    assert coarse.topics == ("t0", "coarse-0", *full.topics[1:-1])
    assert Item.model_validate(coarse.model_dump()) == coarse


def test_coarse_topics_need_topics() -> None:
    with pytest.raises(UsageError, match="needs items with topics"):
        with_coarse_topics([item("a"), item("b")], table(("u", "a"), ("u", "b")), T0 + HOUR_MS, 3, 0)


def test_users_without_a_known_past_are_left_out() -> None:
    items = [item("a", "x"), item("b", "x"), item("c", "y")]
    engaged = table(("u", "a"), ("u", "c"), ("v", "unknown"), ("v", "b"), ("w", "a"), ("w", "b"))
    ranking = evaluate_leave_last_out(engaged, items, 100, LEARNING, nobody, ["conditional"], epochs=1)
    assert ranking.items == [3, 2]


def test_everybody_is_shown_what_is_new_to_them() -> None:
    """Two users end with the same item in the same millisecond, with other pasts."""
    engaged = table(("u", "a"), ("v", "b"), ("u", "c"), ("v", "c"))
    engaged.occurred_ms[3] = engaged.occurred_ms[2]
    corpus = Corpus()
    for name in "abc":
        corpus.put(item(name, "x"))
    owners = np.array(["u", "v"], dtype=object)
    seen = leave_last_out._seen(engaged, {2: None, 3: None}, corpus, np.array([3, 3]), owners)
    assert [each.tolist() for each in seen] == [[1], [2]]


def test_a_baseline_that_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert installed_baselines() == BASELINES
    monkeypatch.setattr("training.evaluation.baselines.find_spec", lambda name: None)
    assert list(installed_baselines()) == ["item-knn", "ease", "ease-positive"]
    assert capsys.readouterr().err.count("\n") == 1

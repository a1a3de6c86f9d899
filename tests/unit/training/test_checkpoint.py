"""Checkpoints come back as they were; broken ones and those of other methods are skipped."""

import json
import logging
import resource
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headwater.durations import HOUR_MS
from headwater.errors import HeadwaterError
from headwater.events import Engagement, Item
from headwater.simulator import World
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.checkpoint import FILES, read_checkpoint, write_checkpoint
from training.corpus import Corpus
from training.examples import Logged, build_examples
from training.learner import Learner
from training.methods import METHODS, SERVABLE

LEARNING = LearningSettings(batch=64, uniform=32, same_condition=32)
OFFSETS = {"items": {0: 3}, "engagements": {0: 5, 1: 7}}
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "changed": lambda whole: (
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 255]) + whole[len(whole) // 2 + 1 :]
    ),
    "gone": lambda whole: None,
}


@pytest.fixture(scope="module")
def trained() -> tuple[Learner, Users]:
    corpus, users = Corpus(), Users()
    log: list[Logged] = []
    for event in World(seed=3, users=50, topics=4, items_per_hour=30, engagements_per_hour=300).step(HOUR_MS):
        if isinstance(event, Item):
            corpus.put(event)
        else:
            assert isinstance(event, Engagement)
            log.append(Logged(event, 0, len(log)))
    examples = build_examples(users, corpus, log)
    learner = Learner(corpus, LEARNING)
    for batch in prepare(corpus, examples, LEARNING, np.random.default_rng(0)):
        learner.step(batch)
    return learner, users


@pytest.fixture
def directory(tmp_path: Path, trained: tuple[Learner, Users]) -> Path:
    write_checkpoint(tmp_path, "first", *trained, OFFSETS)
    return tmp_path


def test_a_checkpoint_comes_back_as_it_was(directory: Path, trained: tuple[Learner, Users]) -> None:
    restored = read_checkpoint(directory, replace(LEARNING, seed=7))
    assert restored is not None
    learner, users, offsets = restored
    assert offsets == OFFSETS
    assert users.rows == trained[1].rows
    assert all(users.record(user_id) == trained[1].record(user_id) for user_id in users.rows)
    weights = trained[0].towers.state_dict()
    assert all(value.equal(weights[name]) for name, value in learner.towers.state_dict().items())
    assert learner.corpus.items == trained[0].corpus.items
    assert learner.corpus.totals.tolist() == trained[0].corpus.totals.tolist()


def test_few_users_are_encoded_at_once(
    tmp_path: Path, directory: Path, trained: tuple[Learner, Users], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, encoded = [], Users.encoded

    def noted(users: Users, rows: Sequence[int]) -> list[bytes]:
        sizes.append(len(rows))
        return encoded(users, rows)

    monkeypatch.setattr(Users, "encoded", noted)
    monkeypatch.setattr("training.checkpoint.USERS_AT_ONCE", 7)
    write_checkpoint(tmp_path / "sliced", "first", *trained, OFFSETS)
    assert max(sizes) == 7
    assert sum(sizes) == len(trained[1])
    users = (tmp_path / "sliced" / "first" / "users.bin").read_bytes()
    assert users == (directory / "first" / "users.bin").read_bytes()


@pytest.mark.parametrize("method", ["ids-hashed", "fusion-sum", "many-negatives"])
def test_a_checkpoint_of_another_method_is_skipped(
    directory: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert read_checkpoint(directory, replace(LEARNING, **METHODS[method])) is None
    assert f"trained with different settings: {next(iter(METHODS[method]))}" in caplog.text


@pytest.mark.parametrize("name", [*FILES, "state.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_is_skipped(
    directory: Path,
    trained: tuple[Learner, Users],
    name: str,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_checkpoint(directory, "second", *trained, {**OFFSETS, "items": {0: 9}})
    path = directory / "second" / name
    damaged = DAMAGES[damage](path.read_bytes())
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    with caplog.at_level(logging.ERROR):
        restored = read_checkpoint(directory, LEARNING)
    assert restored is not None
    assert restored[2] == OFFSETS
    assert f"skipping checkpoint {directory / 'second'}" in caplog.text


def test_a_full_disk_is_told_and_leaves_nothing(directory: Path, trained: tuple[Learner, Users]) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most[1]))
    try:
        with pytest.raises(HeadwaterError, match=r"cannot be written: .*learner\.pt"):
            write_checkpoint(directory, "second", *trained, OFFSETS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert [path.name for path in directory.iterdir()] == ["first"]


def test_what_a_killed_process_left_is_removed(directory: Path, trained: tuple[Learner, Users]) -> None:
    (directory / ".staging-torn").mkdir()
    write_checkpoint(directory, "second", *trained, OFFSETS)
    assert sorted(path.name for path in directory.iterdir()) == ["first", "second"]
    assert json.loads((directory / "second" / "state.json").read_text())["files"].keys() == set(FILES)


def test_methods_that_the_gate_refuses_are_not_offered() -> None:
    assert not {"learned-retrieval", "logistic-regression"} & set(SERVABLE)
    assert {"conditional", "fusion-sum", "ids-hashed"} <= set(SERVABLE)

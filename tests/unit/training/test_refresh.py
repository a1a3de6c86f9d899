"""The trainer's state between refreshes, on a log in memory; bundles are mere names here."""

import errno
import logging
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from kafka.errors import KafkaConnectionError
from pydantic import SecretStr

from headwater.bundle import bundle_versions
from headwater.durations import HOUR_MS
from headwater.errors import AliasMoved, HeadwaterError, ServiceUnavailable, UsageError
from headwater.events import Engagement, Item, now_ms
from headwater.names import ENGAGEMENTS, MANIFEST_FILE
from headwater.settings import DAY_S, Settings
from headwater.simulator import World
from headwater.verification import VerificationReport
from tests.bundles import make_bundle
from tests.unit.training.fake_log import FakeLog
from training.batches import LearningSettings, prepare
from training.corpus import Corpus
from training.examples import Examples
from training.export import new_version
from training.gate import CANDIDATE, MIN_QUERIES, Decision
from training.learner import Learner
from training.log import LogReader
from training.refresh import Trainer
from training.staging import exclusive_directory

LEARNING = LearningSettings(batch=64, uniform=32, same_condition=32)
DAY_MS = DAY_S * 1000
WORLD = {"users": 300, "topics": 4, "items_per_hour": 60.0, "engagements_per_hour": 400.0}


def publish_nothing(learner: Any, repository: Path, *rest: Any) -> Path:
    """Stand in for `export_bundle`."""
    path = repository / new_version(repository)
    path.mkdir(parents=True)
    (path / MANIFEST_FILE).write_text("{}")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    redis_url = SecretStr(f"redis://{tmp_path.name}:6379/0")
    return Settings(redis_url=redis_url, model_dir=tmp_path / "onnx", state_dir=tmp_path / "var")


@pytest.fixture
def log(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FakeLog:
    log = FakeLog(settings)
    monkeypatch.setattr("headwater.consumers.KafkaConsumer", log.consumer)
    monkeypatch.setattr("headwater.rotation.Redis", fakeredis.FakeRedis)
    monkeypatch.setattr("training.refresh.export_bundle", publish_nothing)
    return log


@pytest.fixture
def hours() -> Iterator[list[Item | Engagement]]:
    """What happens in one hour after the other."""
    world = World(seed=3, **WORLD)  # type: ignore[arg-type]
    return ([*world.step(HOUR_MS)] for _ in range(10))


def refreshed(trainer: Trainer) -> dict[str, Any]:
    """Refresh once; return the run record."""
    record = trainer.refresh(promote=False)
    assert record is not None
    return record


def state(trainer: Trainer) -> tuple[Any, ...]:
    """Return what a refresh changes."""
    towers = trainer.learner.towers.state_dict() if trainer.learner else {}
    weights = {name: float(each.sum()) for name, each in towers.items()}
    corpus = trainer.corpus
    covisits = corpus.covisits.arrays()["counts"].tolist()
    return (
        weights,
        {user_id: trainer.users.record(user_id) for user_id in trainer.users.rows},
        list(corpus.items),
        corpus.totals.sum(),
        covisits,
        deepcopy(trainer.reader.offsets),
    )


def test_a_refresh_that_fails_is_made_up_for_by_the_next(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]]
) -> None:
    trainer = Trainer(settings, LEARNING)
    log.send(next(hours))
    total = refreshed(trainer)["examples"]
    before = state(trainer)

    log.send(next(hours))
    log.failure, log.polls = KafkaConnectionError("gone"), 2
    with pytest.raises(ServiceUnavailable):
        trainer.refresh(promote=False)
    assert state(trainer) == before
    log.failure = None
    total += refreshed(trainer)["examples"]
    sent = sum(len(records) for partition, records in log.records.items() if partition.topic == ENGAGEMENTS)
    assert total == sent == int(trainer.corpus.totals.sum())


def test_engagements_with_items_that_come_meanwhile_wait_for_the_next_refresh(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(settings, LEARNING)
    log.send(next(hours))
    read_items = LogReader.read_items

    def then_more_comes(reader: LogReader, corpus: Corpus) -> int:
        count = read_items(reader, corpus)
        if "fresh" not in corpus.item_index:
            at_ms = now_ms()
            log.send([Item(item_id="fresh", topics=("topic-0",), published_at=at_ms)])
            log.send([Engagement(event_id="e", user_id="u", item_id="fresh", occurred_at=at_ms)])
        return count

    monkeypatch.setattr(LogReader, "read_items", then_more_comes)
    refreshed(trainer)
    assert "u" not in trainer.users.rows
    assert refreshed(trainer)["examples"] == 1
    assert trainer.users.record("u").state.item_ids == ("fresh",)


def test_items_that_nobody_needs_any_more_leave_nothing_behind(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.refresh.RETENTION_MS", HOUR_MS)
    trainer = Trainer(settings.model_copy(update={"item_ttl_s": 3600}), LEARNING)
    for _ in range(8):
        log.send(next(hours))
    refreshed(trainer)
    former = trainer.corpus
    later_ms = now_ms() + 3 * HOUR_MS
    for module in ("refresh", "log"):
        monkeypatch.setattr(f"training.{module}.now_ms", lambda: later_ms)
    log.send(next(hours))
    refreshed(trainer)
    kept = trainer.corpus
    assert len(kept) < len(former) / 2
    assert trainer.learner is not None
    assert trainer.learner.corpus is kept
    engaged_ms = former.engaged_ms[[former.item_index[item.item_id] for item in former.items]]
    for item, at_ms in zip(former.items, engaged_ms.tolist(), strict=True):
        assert item.item_id in kept.item_index or at_ms < former.engaged_ms.max() - HOUR_MS
    restored = Trainer(trainer.settings, LEARNING)
    assert state(restored) == state(trainer)
    log.send(next(hours))
    assert refreshed(restored)["examples"] == refreshed(trainer)["examples"]


def test_a_long_log_is_learned_in_parts(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for _ in range(3):
        log.send(next(hours))
    at_once = Trainer(settings, LEARNING)
    total = refreshed(at_once)["examples"]
    monkeypatch.setattr("training.log.PART", 100)
    learned: list[int] = []
    learn = Trainer._learn

    def noted(trainer: Trainer, learner: Learner, examples: Examples) -> None:
        learned.append(len(examples))
        learn(trainer, learner, examples)

    monkeypatch.setattr(Trainer, "_learn", noted)
    in_parts = Trainer(settings.model_copy(update={"state_dir": tmp_path / "parts"}), LEARNING)
    assert refreshed(in_parts)["examples"] == total == sum(learned)
    assert len(learned) > 10
    assert max(learned) < 110
    users = at_once.users.rows.keys()
    assert in_parts.users.rows.keys() == users
    assert all(in_parts.users.record(user_id) == at_once.users.record(user_id) for user_id in users)
    assert in_parts.reader.offsets == at_once.reader.offsets
    assert in_parts.corpus.totals.tolist() == at_once.corpus.totals.tolist()
    assert len(in_parts.recent) == total


def test_a_first_refresh_that_fails_leaves_nothing(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(settings, LEARNING)
    log.send(next(hours))

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("training.checkpoint.torch.save", fail)
        with pytest.raises(HeadwaterError, match=r"checkpoints cannot be written: .*No space left"):
            trainer.refresh(promote=False)
    assert state(trainer) == state(Trainer(settings, LEARNING))
    assert list((trainer.directory / "checkpoints").iterdir()) == []
    assert refreshed(trainer)["examples"] > 0


def test_a_log_that_was_recreated_is_learned_from_its_beginning(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    log.send(next(hours))
    log.send(next(hours))
    Trainer(settings, LEARNING).refresh(promote=False)
    log.clear()
    trainer = Trainer(settings, LEARNING)
    with caplog.at_level(logging.WARNING), pytest.raises(UsageError, match="no engagement"):
        trainer.refresh(promote=False)
    assert "it was recreated" in caplog.text
    log.send(next(hours))
    record = refreshed(trainer)
    assert record["examples"] == int(trainer.corpus.totals.sum()) > 0
    assert Trainer(settings, LEARNING).refresh(promote=False) is None


def test_a_small_refresh_is_judged_by_enough_queries(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]]
) -> None:
    trainer = Trainer(settings, LEARNING)
    hour = next(hours)
    items = [event for event in hour if isinstance(event, Item)]
    log.send([*items, *islice((event for event in hour if isinstance(event, Engagement)), 200)])
    ranked = []
    rank = trainer._rank
    trainer._rank = lambda *given: ranked.append(rank(*given)) or ranked[-1]  # type: ignore[method-assign,func-returns-value]
    record = refreshed(trainer)
    assert record["examples"] == 200
    assert len(ranked[0].row(CANDIDATE).ranks) >= MIN_QUERIES
    assert not any("too few" in reason for reason in record["reasons"])


def test_no_part_is_learned_with_the_chance_of_another(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    def prepared(corpus: Any, examples: Any, learning: Any, random: Any) -> Any:
        begun.append(random.bit_generator.state["state"]["state"])
        return prepare(corpus, examples, learning, random)

    monkeypatch.setattr("training.refresh.prepare", prepared)
    trainer = Trainer(settings, LEARNING)
    hour = next(hours)
    log.send([*(event for event in hour if isinstance(event, Item))])
    events = [event for event in hour if isinstance(event, Engagement)][:100]
    for number in range(3):
        log.send(each.model_copy(update={"event_id": f"{number}-{each.event_id}"}) for each in events)
        refreshed(trainer)
    assert len(set(begun)) == len(begun) == 6


def test_what_is_left_out_is_counted_for_each_refresh(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]]
) -> None:
    trainer, counted = Trainer(settings, LEARNING), []
    for _ in range(2):
        log.send(next(hours))
        log._append(ENGAGEMENTS, 0, b"u", b"{")
        counted.append(refreshed(trainer)["skipped"])
    assert counted == [{"malformed-json": 1}] * 2


def test_bundles_that_are_never_built_do_not_pile_up(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]]
) -> None:
    trainer = Trainer(settings, LEARNING)
    published = []
    for number in range(5):
        log.send(next(hours))
        published.append(refreshed(trainer)["version"])
        if number == 0:
            trainer.rotation.generations.request(published[0])
    assert list(bundle_versions(settings.model_dir)) == [published[0], *published[-2:]]


def test_generations_that_are_never_promoted_do_not_pile_up(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(settings, LEARNING)
    generations = trainer.rotation.generations

    def refuse(version: str, told: bool = True) -> VerificationReport:
        raise ServiceUnavailable("no server")

    monkeypatch.setattr("training.refresh.decide", lambda ranking: Decision(promote=True, reasons=[]))
    monkeypatch.setattr(trainer.rotation, "build", lambda version, told: generations.request(version))
    monkeypatch.setattr(trainer.rotation, "verify", refuse)
    for _ in range(4):
        log.send(next(hours))
        with pytest.raises(ServiceUnavailable, match="no server"):
            trainer.refresh()
    states = [generation.state for generation in generations.all()]
    assert states == ["pruned", "pruned", "requested", "requested"]
    assert len(list(bundle_versions(settings.model_dir))) == 2


def test_after_a_rollback_only_an_operator_promotes(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(settings, LEARNING)
    generations, rotated = trainer.rotation.generations, list[str]()
    monkeypatch.setattr(trainer, "_rotate", lambda version, alias: rotated.append(version))
    monkeypatch.setattr("training.refresh.decide", lambda ranking: Decision(promote=True, reasons=[]))
    for version in ("v1", "v2"):
        make_bundle(settings.model_dir, version, ["news"])
        generations.request(version)
        generations.move_alias(generations.alias(), version)
    assert trainer.rotation.rollback() == "v1"
    log.send(next(hours))
    record = trainer.refresh()
    assert record is not None
    assert (record["promoted"], rotated, len(record["reasons"])) == (False, [], 1)
    assert "rolled back" in record["reasons"][0]
    # A promotion that began before the rollback does not undo it.
    with pytest.raises(AliasMoved):
        generations.move_alias(generations.alias().model_copy(update={"promotions_paused": False}), "v2")
    monkeypatch.setattr(trainer.rotation, "verify", lambda version: VerificationReport(version=version, checks=[]))
    trainer.rotation.promote("v1")
    assert (generations.alias().promotions_paused, generations.alias().previous) == (False, "v2")
    log.send(next(hours))
    record = trainer.refresh()
    assert record is not None
    assert record["promoted"]
    assert rotated == [record["version"]]


def test_users_are_forgotten_when_the_store_forgets_them(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]]
) -> None:
    settings.user_ttl_s = 1800
    trainer = Trainer(settings, LEARNING)
    log.send(next(hours))
    refreshed(trainer)
    last_ms = [trainer.users.record(user_id).state.times_ms[-1] for user_id in trainer.users.rows]
    assert max(last_ms) - min(last_ms) <= 1_800_000
    assert len(last_ms) < len({record.key for records in log.records.values() for record in records})


def test_items_are_forgotten_when_the_store_forgets_them(
    settings: Settings, log: FakeLog, hours: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_ms = now_ms()

    def live_at(days: int) -> set[str]:
        for module in ("log", "refresh"):
            monkeypatch.setattr(f"training.{module}.now_ms", lambda: begun_ms + days * DAY_MS)
        trainer = Trainer(settings, LEARNING)
        refreshed(trainer)
        return {item.item_id for place, item in enumerate(trainer.corpus.items) if trainer.corpus.alive[place + 1]}

    sent = [next(hours) for _ in range(3)]
    first, second, third = ({each.item_id: each for each in hour if isinstance(each, Item)} for hour in sent)
    log.send(sent[0])
    assert live_at(0) == set(first)
    log.send(sent[1])
    assert live_at(30) == {*first, *second}
    again = next(iter(first))
    log.send([first[again], *sent[2]])
    assert live_at(31) == {again, *second, *third}


def test_trainers_do_not_share_a_directory(tmp_path: Path) -> None:
    with exclusive_directory(tmp_path / "training"):
        with pytest.raises(UsageError, match="another trainer is at work"), exclusive_directory(tmp_path / "training"):
            pass
        with exclusive_directory(tmp_path / "other"):
            pass
    with exclusive_directory(tmp_path / "training"):
        pass


def test_a_version_sorts_after_those_of_a_clock_that_was_ahead(tmp_path: Path) -> None:
    for version in ("20991231T235959999Z", "aa"):
        make_bundle(tmp_path, version, ["news"])
    assert new_version(tmp_path) == "21000101T000000000Z"
    (tmp_path / "20991231T235959999Z" / MANIFEST_FILE).unlink()
    assert new_version(tmp_path) < "2099"

"""Which dead letters are shown and replayed, on a log in memory."""

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from headwater import dead_letters_cli
from headwater.dead_letter import DeadLetter
from headwater.dead_letters_cli import outdated_items, summed, unique
from headwater.names import ITEMS
from headwater.settings import Settings
from tests.unit.training.fake_log import FakeLog


def letter(offset: int, key: bytes = b"x", at_ms: int = 0, reason: str = "invalid") -> DeadLetter:
    return DeadLetter(ITEMS, 0, offset, key, b"v%d" % offset, reason, "", at_ms=at_ms)


def test_of_several_dead_letters_of_an_item_each_that_a_later_record_follows_is_outdated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = FakeLog(Settings())
    keys = [b"x", b"y", b"x", b"x", b"y"]
    log.records[TopicPartition(ITEMS, 0)] = [
        SimpleNamespace(key=key, partition=0, offset=offset) for offset, key in enumerate(keys)
    ]
    monkeypatch.setattr("headwater.consumers.KafkaConsumer", log.consumer)
    letters = [letter(0), letter(2), letter(3), letter(4, b"y")]
    assert outdated_items(Settings(), letters) == {letters[0], letters[1]}


def test_the_newest_are_shown_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters_cli, "SPARE", 3)
    random = Random(1)
    times = random.sample(range(1000), 200)
    letters = [letter(random.randrange(60), at_ms=at_ms, reason=f"r{at_ms % 3}") for at_ms in times]
    expected = unique(letters)
    for limit in (1, 7, 500):
        counts, newest = summed(iter(letters), limit)
        assert newest == expected[-limit:]
        assert counts.total() == len(expected)
        assert counts["r1"] == sum(each.reason == "r1" for each in expected)


def test_what_has_neither_key_nor_value_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    class Producer:
        def __init__(self, **options: Any) -> None: ...

        def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> Any:
            if key is None and value is None:
                raise ValueError("Need at least one: key or value")
            sent.append((key, value))
            return SimpleNamespace(get=lambda timeout: None)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(dead_letters_cli, "KafkaProducer", Producer)
    dead_letters_cli._append(Settings(), [DeadLetter(ITEMS, 0, 1, None, None, "empty", "")])
    assert sent == [(None, b"")]

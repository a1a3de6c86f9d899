"""Where a server begins to read what it follows."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from headwater.names import ITEM_ACTIVITY, ITEM_EMBEDDINGS, ITEM_SUCCESSIONS
from headwater.settings import Settings
from streams.follower import Start, end_offsets, set_start

SINCE_MS = 1_700_000_000_000
BEGIN, NEWER, END = 10, 990, 1000


class Consumer:
    """Of topics with two partitions; only the first holds anything newer than `SINCE_MS`."""

    committed: dict[TopicPartition, Any]

    def __init__(self, **options: Any) -> None: ...

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1}

    def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, BEGIN)

    def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, END)

    def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        return {each: None if each.partition else SimpleNamespace(offset=NEWER) for each in times}

    def assign(self, partitions: list[TopicPartition]) -> None: ...

    def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        Consumer.committed = offsets

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.consumers.KafkaConsumer", Consumer)


def began(start: Start) -> dict[int, int]:
    begins = set_start(Settings(), "g", {ITEM_EMBEDDINGS: start})
    assert {each.partition: at.offset for each, at in Consumer.committed.items()} == begins[ITEM_EMBEDDINGS]
    return begins[ITEM_EMBEDDINGS]


def test_a_partition_that_holds_nothing_newer_begins_at_its_end() -> None:
    assert began(Start(since_ms=SINCE_MS)) == {0: NEWER, 1: END}
    assert began(Start({0: 995, 1: 995}, SINCE_MS)) == {0: NEWER, 1: 995}


def test_without_a_time_a_partition_begins_where_it_is_told_or_at_its_beginning() -> None:
    assert began(Start()) == {0: BEGIN, 1: BEGIN}
    assert began(Start({0: 5})) == {0: BEGIN, 1: BEGIN}
    assert began(Start({0: 500})) == {0: 500, 1: BEGIN}


def test_the_ends_of_all_that_is_followed_are_known() -> None:
    assert end_offsets(Settings()) == {
        name: {0: END, 1: END} for name in (ITEM_EMBEDDINGS, ITEM_ACTIVITY, ITEM_SUCCESSIONS)
    }

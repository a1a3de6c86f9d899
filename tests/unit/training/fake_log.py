"""A log in memory that is read as kafka-python reads Kafka, and can fail."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition

from headwater.events import Engagement, Item
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.settings import Settings

A_POLL = 100


class FakeLog:
    """Topics of two partitions; `consumer` stands in for `KafkaConsumer`.

    Attributes:
        records: Topic and partition to its records.
        failure: Raised by the poll after `polls` more of them.
        silent: No poll returns a record.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.names.topic
        self.failure: Exception | None = None
        self.polls = 0
        self.silent = False
        self.clear()

    def clear(self) -> None:
        """Be a log that was created anew."""
        self.records: dict[TopicPartition, list[Any]] = {
            TopicPartition(self._topic(name), number): [] for name in (ITEMS, ENGAGEMENTS) for number in (0, 1)
        }

    def send(self, events: Iterable[Item | Engagement]) -> None:
        """Append events; users and items keep to their partition."""
        for event in events:
            name, key = (ITEMS, event.item_id) if isinstance(event, Item) else (ENGAGEMENTS, event.user_id)
            partition = TopicPartition(self._topic(name), sum(key.encode()) % 2)
            records = self.records[partition]
            records.append(
                SimpleNamespace(
                    key=key.encode(),
                    value=event.to_wire(),
                    headers=(),
                    partition=partition.partition,
                    offset=len(records),
                )
            )

    def consumer(self, **options: object) -> "FakeConsumer":
        """Return a consumer from the beginning."""
        return FakeConsumer(self)


class FakeConsumer:
    """What the trainer uses of a consumer."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self._positions: dict[TopicPartition, int] = {}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {each.partition for each in self._log.records if each.topic == topic}

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._positions = dict.fromkeys(partitions, 0)

    def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {each: len(self._log.records[each]) for each in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        self._log.polls -= 1
        if self._log.failure is not None and self._log.polls < 0:
            raise self._log.failure
        found = {}
        for partition, begin in self._positions.items():
            records = [] if self._log.silent else self._log.records[partition][begin : begin + A_POLL]
            if records:
                found[partition] = records
                self._positions[partition] = begin + len(records)
        return found

    def close(self) -> None:
        pass

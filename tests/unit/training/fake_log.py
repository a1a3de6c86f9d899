"""A log in memory that is read as kafka-python reads Kafka, and can fail."""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition

from headwater.events import Engagement, Item
from headwater.frames import FRAME_HEADERS, Headers, encode_frame
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.settings import Settings

A_POLL = 100


class FakeLog:
    """Topics of two partitions; `consumer` stands in for `KafkaConsumer`.

    Attributes:
        records: Topic and partition to its records, None for one that is gone.
        failure: Raised by the poll after `polls` more of them.
        silent: No poll returns a record.
        appended_ms: Of what is sent, as in the log; 0 where it has no time.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.names.topic
        self.failure: Exception | None = None
        self.polls = 0
        self.silent = False
        self.appended_ms = 0
        self.clear()

    def clear(self) -> None:
        """Be a log that was recreated."""
        self.records: dict[TopicPartition, list[Any]] = {
            TopicPartition(self._topic(name), number): [] for name in (ITEMS, ENGAGEMENTS) for number in (0, 1)
        }

    def send(self, events: Iterable[Item | Engagement]) -> None:
        """Append events; users and items keep to their partition."""
        for event in events:
            name, key = (ITEMS, event.item_id) if isinstance(event, Item) else (ENGAGEMENTS, event.user_id)
            self._append(name, sum(key.encode()) % 2, key.encode(), event.to_wire())

    def send_framed(self, events: Sequence[Engagement], size: int) -> None:
        """Append engagements in frames of at most `size`; users keep to their partition."""
        for number in (0, 1):
            pairs = [(each.user_id.encode(), each.to_wire()) for each in events]
            own = [pair for pair in pairs if sum(pair[0]) % 2 == number]
            for start in range(0, len(own), size):
                frame = encode_frame(own[start : start + size])
                self._append(ENGAGEMENTS, number, None, frame, FRAME_HEADERS)

    def _append(self, name: str, number: int, key: bytes | None, value: bytes, headers: Headers = ()) -> None:
        records = self.records[TopicPartition(self._topic(name), number)]
        records.append(
            SimpleNamespace(
                key=key,
                value=value,
                headers=headers,
                partition=number,
                offset=len(records),
                timestamp=self.appended_ms,
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
            self._positions[partition] = begin + len(records)
            if any(records):
                found[partition] = [each for each in records if each is not None]
        return found

    def close(self) -> None:
        pass

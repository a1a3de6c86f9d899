"""A Kafka record as the agents' plain functions see it."""

from typing import Any, NamedTuple

from headwater.dead_letter import DeadLetter
from headwater.errors import InvalidEvent
from headwater.frames import events_in, position


class Record(NamedTuple):
    """One consumed record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    appended_ms: int = 0
    place: int = 0

    @property
    def source(self) -> tuple[str, int]:
        """The topic and partition it came from."""
        return self.topic, self.partition

    @property
    def position(self) -> int:
        """Its position in the partition, larger for later events; see `headwater.frames.position`."""
        return position(self.offset, self.place)

    def events(self) -> "list[Record]":
        """Return the events in a frame, each as a record of its own; anything else is one already."""
        return [
            Record(self.topic, self.partition, self.offset, key, value, tuple(headers), self.appended_ms, place)
            for place, (key, value, headers) in enumerate(events_in(self.key, self.value, self.headers))
        ]

    @classmethod
    def of(cls, fetched: Any) -> "Record":
        """Return a record as aiokafka gives it."""
        return cls(
            fetched.topic,
            fetched.partition,
            fetched.offset,
            fetched.key,
            fetched.value,
            tuple(fetched.headers),
            fetched.timestamp or 0,
        )

    def rejected(self, error: InvalidEvent) -> DeadLetter:
        """Return this record as a dead letter."""
        return DeadLetter.of(
            self.topic, self.partition, self.offset, self.key, self.value, error, self.place, self.headers
        )


class Outgoing(NamedTuple):
    """One record to append."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

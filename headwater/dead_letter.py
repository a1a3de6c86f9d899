"""Dead letters: the original bytes of a record that could not be used, and why."""

from collections.abc import Iterable
from dataclasses import dataclass

from headwater.errors import InvalidEvent
from headwater.names import (
    HEADER_ERROR,
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_PLACE,
    HEADER_REASON,
    HEADER_TOPIC,
)

MAX_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One unusable record; key and value are the original bytes.

    Attributes:
        place: In the frame at that offset; 0 where the record was an event itself.
        reason: Short stable code, as in `InvalidEvent.reason`.
        error: What was wrong, in words.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str
    error: str
    place: int = 0

    @classmethod
    def of(
        cls,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        error: InvalidEvent,
        place: int = 0,
    ) -> "DeadLetter":
        """Return the dead letter for a record that raised `error`."""
        return cls(topic, partition, offset, key, value, error.reason, str(error)[:MAX_ERROR_CHARACTERS], place)

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the Kafka headers that go with the original key and value."""
        return [
            (HEADER_TOPIC, self.topic.encode()),
            (HEADER_PARTITION, str(self.partition).encode()),
            (HEADER_OFFSET, str(self.offset).encode()),
            (HEADER_PLACE, str(self.place).encode()),
            (HEADER_REASON, self.reason.encode()),
            (HEADER_ERROR, self.error.encode()),
        ]

    @classmethod
    def from_record(cls, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> "DeadLetter":
        """Return the dead letter a record of `dead-letters` carries; missing headers read as unknown."""
        text = {name: raw.decode(errors="replace") for name, raw in headers or ()}
        return cls(
            topic=text.get(HEADER_TOPIC, "unknown"),
            partition=int(text.get(HEADER_PARTITION, -1)),
            offset=int(text.get(HEADER_OFFSET, -1)),
            key=key,
            value=value,
            reason=text.get(HEADER_REASON, "unknown"),
            error=text.get(HEADER_ERROR, ""),
            place=int(text.get(HEADER_PLACE, 0)),
        )

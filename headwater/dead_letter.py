"""Dead letters: the original bytes of a record that could not be used, and why."""

from dataclasses import dataclass

from headwater.errors import InvalidEvent
from headwater.frames import Headers
from headwater.names import (
    HEADER_ERROR,
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_PLACE,
    HEADER_REASON,
    HEADER_REPLAYED,
    HEADER_TOPIC,
)

MAX_ERROR_CHARACTERS = 500
KEPT_BYTES = 131_072
OURS = frozenset({HEADER_TOPIC, HEADER_PARTITION, HEADER_OFFSET, HEADER_PLACE, HEADER_REASON, HEADER_ERROR})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One unusable record; key, value and headers are the original ones, so that it can be sent again.

    Of key, value and headers at most `KEPT_BYTES` each are kept, so that Kafka takes the dead letter of the largest record it
    takes; `error` says where something is missing.

    Attributes:
        place: In the frame at that offset; 0 where the record was an event itself.
        reason: Short stable code, as in `InvalidEvent.reason`.
        error: What was wrong, in words.
        original: The record's own headers, without those that had a null value.
        at_ms: When Kafka took the dead letter, epoch ms; 0 where it did not yet.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str
    error: str
    place: int = 0
    original: tuple[tuple[str, bytes], ...] = ()
    at_ms: int = 0

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
        headers: Headers = (),
    ) -> "DeadLetter":
        """Return the dead letter for a record that raised `error`."""
        original = tuple((name, raw) for name, raw in headers if raw is not None)
        text = str(error)[:MAX_ERROR_CHARACTERS]
        for part in (key, value):
            if part is not None and len(part) > KEPT_BYTES:
                text += f"; the first {KEPT_BYTES} of {len(part)} bytes are kept"
        if sum(len(name) + len(raw) for name, raw in original) > KEPT_BYTES:
            text, original = f"{text}; its headers are not kept", ()
        key, value = key and key[:KEPT_BYTES], value and value[:KEPT_BYTES]
        return cls(topic, partition, offset, key, value, error.reason, text, place, original)

    @property
    def sendable_value(self) -> bytes | None:
        """The value as it is sent: an empty one where there is neither key nor value, which no client sends."""
        return b"" if self.key is None and self.value is None else self.value

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the Kafka headers that go with key and value: the original ones and `dead_letter_*`."""
        return [
            *self.original,
            (HEADER_TOPIC, self.topic.encode()),
            (HEADER_PARTITION, str(self.partition).encode()),
            (HEADER_OFFSET, str(self.offset).encode()),
            (HEADER_PLACE, str(self.place).encode()),
            (HEADER_REASON, self.reason.encode()),
            (HEADER_ERROR, self.error.encode()),
        ]

    @property
    def origin(self) -> bytes:
        """The original position of the record, however often it was replayed."""
        here = f"{self.topic}/{self.partition}@{self.offset}#{self.place}".encode()
        return dict(self.original).get(HEADER_REPLAYED, here)

    def replayed_headers(self) -> list[tuple[str, bytes]]:
        """Return the Kafka headers with which the record is sent again."""
        return [*(each for each in self.original if each[0] != HEADER_REPLAYED), (HEADER_REPLAYED, self.origin)]

    @classmethod
    def from_record(cls, key: bytes | None, value: bytes | None, headers: Headers, at_ms: int = 0) -> "DeadLetter":
        """Return the dead letter a record of `dead-letters` carries; missing headers read as unknown."""
        given = [(name, raw) for name, raw in headers or () if raw is not None]
        text = {name: raw.decode(errors="replace") for name, raw in given if name in OURS}
        return cls(
            topic=text.get(HEADER_TOPIC, "unknown"),
            partition=int(text.get(HEADER_PARTITION, -1)),
            offset=int(text.get(HEADER_OFFSET, -1)),
            key=key,
            value=value,
            reason=text.get(HEADER_REASON, "unknown"),
            error=text.get(HEADER_ERROR, ""),
            place=int(text.get(HEADER_PLACE, 0)),
            original=tuple((name, raw) for name, raw in given if name not in OURS),
            at_ms=at_ms,
        )

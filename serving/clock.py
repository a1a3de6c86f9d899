"""What time it is for queries, and how fresh what they see is."""

from typing import Literal

from headwater.events import now_ms


class Clock:
    """The wall clock, or the newest event time seen where history is replayed."""

    def __init__(self, kind: Literal["wall", "watermark"]) -> None:
        self._kind = kind
        self.watermark_ms = 0
        self.appended_ms = 0

    def advance(self, at_ms: int) -> None:
        """Note an event time."""
        self.watermark_ms = max(self.watermark_ms, at_ms)

    def note_append(self, appended_ms: int) -> None:
        """Note the append time of a Kafka record whose effect is now in answers."""
        self.appended_ms = max(self.appended_ms, appended_ms)

    def freshness_ms(self) -> int | None:
        """Return how long ago the newest followed record was appended; None before the first."""
        return max(0, now_ms() - self.appended_ms) if self.appended_ms else None

    def now_ms(self) -> int:
        """Return epoch ms."""
        if self._kind == "watermark" and self.watermark_ms:
            return self.watermark_ms
        return now_ms()

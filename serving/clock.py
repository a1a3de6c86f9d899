"""What time it is for queries."""

import time
from typing import Literal


class Clock:
    """The wall clock, or the newest event time seen where history is replayed."""

    def __init__(self, kind: Literal["wall", "watermark"]) -> None:
        self._kind = kind
        self.watermark_ms = 0

    def advance(self, at_ms: int) -> None:
        """Note an event time."""
        self.watermark_ms = max(self.watermark_ms, at_ms)

    def now_ms(self) -> int:
        """Return epoch ms."""
        if self._kind == "watermark" and self.watermark_ms:
            return self.watermark_ms
        return time.time_ns() // 1_000_000

"""What a stream worker has done so far."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from headwater.dead_letter import DeadLetter


@dataclass
class Report:
    """Counters since the worker started.

    Attributes:
        applied, duplicates, repeated: Engagements by outcome; repeated ones were applied before a crash.
        dead_letters: Unusable engagements.
        items, deliveries: Applied records of those topics.
        rejected: Dead letters of all topics by reason.
    """

    applied: int = 0
    duplicates: int = 0
    repeated: int = 0
    dead_letters: int = 0
    items: int = 0
    deliveries: int = 0
    embedded: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def reject(self, letters: list[DeadLetter]) -> None:
        """Count dead letters by reason."""
        self.rejected.update(letter.reason for letter in letters)

    def line(self) -> str:
        """Return the counters as a log line."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.rejected.most_common())
        return (
            f"engagements: {self.applied} applied, {self.duplicates} duplicates, {self.repeated} repeated, "
            f"{self.dead_letters} dead letters; items: {self.items}, embedded {self.embedded}; "
            f"deliveries: {self.deliveries}" + (f"; rejected: {reasons}" if reasons else "")
        )

    def write(self, path: Path) -> None:
        """Replace the file with the counters as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.__dict__), encoding="utf-8")
        temporary.replace(path)

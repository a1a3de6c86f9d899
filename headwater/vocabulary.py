"""The ids a model version knows: topics and items as consecutive numbers, 0 for everything else."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

UNKNOWN = 0


@dataclass(frozen=True)
class Vocabulary:
    """Attributes of one model version.

    Attributes:
        topics: Topic names; the n-th has index n + 1.
        items: Item ids trained often enough to have an embedding of their own; the n-th has index n + 1.
    """

    topics: tuple[str, ...]
    items: tuple[str, ...]

    @cached_property
    def topic_index(self) -> dict[str, int]:
        return {topic: index for index, topic in enumerate(self.topics, start=1)}

    @cached_property
    def item_index(self) -> dict[str, int]:
        return {item: index for index, item in enumerate(self.items, start=1)}

    def write(self, path: Path) -> None:
        """Write `vocabulary.json`."""
        content = {"topics": self.topics, "items": self.items}
        path.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Read `vocabulary.json`."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(tuple(content["topics"]), tuple(content["items"]))

"""Which generations an operator's prune names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headwater.generations import Alias, Generation
from headwater.rotation import Rotation
from headwater.settings import Settings


@dataclass
class Register:
    """Stands in for the register on Redis."""

    generations: list[Generation]
    live: Alias

    def all(self) -> list[Generation]:
        return self.generations

    def alias(self) -> Alias:
        return self.live


@pytest.mark.parametrize(("keep", "pruned"), [(1, ["v1", "v3"]), (2, ["v1"]), (3, ["v1"]), (4, []), (5, []), (100, [])])
def test_prune_keeps_the_newest_and_what_may_answer(tmp_path: Path, keep: int, pruned: list[str]) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    built = [Generation(version=f"v{number}", state="built") for number in range(1, 5)]
    cleared = Generation(version="v0", state="pruned")
    rotation.generations = Register([cleared, *built], Alias(version="v2", previous=None))
    assert rotation.prunable(keep) == pruned

"""Which generations an operator's prune names."""

from pathlib import Path
from typing import Any

import pytest

from headwater.rotation import Rotation
from headwater.settings import Settings
from tests.register import Register


@pytest.mark.parametrize(("keep", "pruned"), [(1, ["v1", "v3"]), (2, ["v1"]), (3, ["v1"]), (4, []), (5, []), (100, [])])
def test_prune_keeps_the_newest_and_what_may_answer(tmp_path: Path, keep: int, pruned: list[str]) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    rotation.generations = Register(["v1", "v2", "v3", "v4"], live="v2", pruned=["v0"])
    assert rotation.prunable(keep) == pruned

"""Which generations an operator's prune names, and which rollback refuses."""

from pathlib import Path
from typing import Any

import pytest

from headwater.errors import BundleError, RotationError
from headwater.rotation import Rotation
from headwater.settings import Settings
from tests.bundles import make_bundle
from tests.register import Register


@pytest.mark.parametrize(("keep", "pruned"), [(1, ["v1", "v3"]), (2, ["v1"]), (3, ["v1"]), (4, []), (5, []), (100, [])])
def test_prune_keeps_the_newest_and_what_may_answer(tmp_path: Path, keep: int, pruned: list[str]) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    rotation.generations = Register(["v1", "v2", "v3", "v4"], live="v2", pruned=["v0"])
    assert rotation.prunable(keep) == pruned


def test_rollback_refuses_what_servers_could_not_hold(tmp_path: Path) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    rotation.generations = Register(["v1", "v2"], live="v2")
    with pytest.raises(RotationError, match="no previous generation"):
        rotation.rollback()
    rotation.generations.previous = "v1"
    with pytest.raises(BundleError, match="no bundle here"):
        rotation.rollback()
    tower = make_bundle(tmp_path, "v1", ["news"]) / "item_tower.onnx"
    assert rotation.rollback(dry_run=True) == "v1"
    tower.write_bytes(b"broken")
    with pytest.raises(BundleError, match=r"item_tower\.onnx is not the file that was published"):
        rotation.rollback()

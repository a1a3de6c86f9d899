"""Which generations an operator's prune names, and which rollback refuses."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from headwater.errors import BundleError, RotationError
from headwater.generations import Generation
from headwater.rotation import Rotation
from headwater.settings import Settings
from tests.bundles import make_bundle
from tests.registry import Registry


@pytest.mark.parametrize(("keep", "pruned"), [(1, ["v1", "v3"]), (2, ["v1"]), (3, ["v1"]), (4, []), (5, []), (100, [])])
def test_prune_keeps_the_newest_and_what_may_answer(tmp_path: Path, keep: int, pruned: list[str]) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    rotation.generations = Registry(["v1", "v2", "v3", "v4"], live="v2", pruned=["v0"])
    assert rotation.prunable(keep) == pruned


class Beating(Registry):
    """A builder that embeds nothing new for a while, and beats until `silent_from`."""

    looks, silent_from = 0, 0

    def request(self, version: str) -> None: ...

    def get(self, version: str) -> Generation:
        self.looks += 1
        state: Literal["building", "built"] = "built" if self.looks > 10 else "building"
        return Generation(
            version=version, state=state, embedded=5, items=9, heartbeat_ms=min(self.looks, self.silent_from)
        )


@pytest.mark.parametrize("silent_from", [3, 100])
def test_a_build_is_given_up_once_its_builder_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_from: int
) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    rotation.generations = Beating()
    rotation.generations.silent_from = silent_from
    make_bundle(tmp_path, "v1", ["news"])
    now_s = count()
    monkeypatch.setattr("headwater.rotation.time", SimpleNamespace(monotonic=lambda: next(now_s), sleep=lambda s: None))
    monkeypatch.setattr("headwater.rotation.BUILD_STALL_S", 4)
    if silent_from > 10:
        assert rotation.build("v1").state == "built"
    else:
        with pytest.raises(RotationError, match="no stream worker is embedding items"):
            rotation.build("v1")


def test_what_is_live_already_is_promoted_only_if_it_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    rotation.generations = Registry(["v1"], live="v1")
    verified: list[str] = []

    def verify(version: str) -> Any:
        verified.append(version)
        return SimpleNamespace(require=lambda: None)

    monkeypatch.setattr(rotation, "verify", verify)
    rotation.promote("v1")
    assert (verified, rotation.generations.live) == (["v1"], "v1")


def test_rollback_refuses_what_servers_could_not_hold(tmp_path: Path) -> None:
    rotation: Any = Rotation(Settings(model_dir=tmp_path))
    rotation.generations = Registry(["v1", "v2"], live="v2")
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

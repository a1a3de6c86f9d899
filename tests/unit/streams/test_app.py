"""The Faust app: what it leaves on the disk."""

from pathlib import Path

from headwater.settings import Settings
from streams.app import make_app


def test_apps_of_other_groups_leave_nothing_more_on_the_disk(tmp_path: Path) -> None:
    left = []
    for start in range(3):
        make_app(Settings(state_dir=tmp_path / "var"), f"headwater-serving-{start}")._create_directories()
        left.append(sorted(tmp_path.rglob("*")))
    assert left[0] == left[1] == left[2]
    assert all(path.is_dir() for path in left[0])

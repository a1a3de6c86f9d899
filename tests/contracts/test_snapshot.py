"""Snapshots: the committed one of format 4 stays readable; broken ones are skipped."""

import shutil
from pathlib import Path

import numpy as np

from headwater.features import STREAMING
from headwater.index import ItemIndex
from headwater.index.snapshot import KEPT, OLDEST_S, read_newest_snapshot, read_snapshot, write_snapshot
from headwater.item_embedding import ItemEmbedding

GOLDEN = Path(__file__).parent / "snapshot-format-4"
NOW_MS = 1_700_000_000_000


def small_index() -> ItemIndex:
    index = ItemIndex(4)
    embeddings = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)
    index.upsert([ItemEmbedding(f"i{n}", (f"t{n % 2}",), NOW_MS + n, embeddings[n]) for n in range(10)])
    index.delete(["i3"])
    return index


def answers(index: ItemIndex) -> list[list[str]]:
    query = np.ones((1, 4 + STREAMING), dtype=np.float32)
    return [index.search(query, 5, topic, NOW_MS)[0].item_ids for topic in ("t0", "t1", None)]


def test_the_committed_snapshot_is_read() -> None:
    index, applied = read_snapshot(GOLDEN)
    assert applied == {0: 12, 1: 34}
    assert answers(index) == answers(small_index())
    assert len(index.graph) == 9


def test_a_snapshot_restores_everything(tmp_path: Path) -> None:
    index = small_index()
    write_snapshot(tmp_path, "v1", index, {0: 5})
    restored = read_newest_snapshot(tmp_path, "v1")
    assert restored is not None
    assert restored[1] == {0: 5}
    assert answers(restored[0]) == answers(index)
    restored[0].upsert([ItemEmbedding("new", ("t0",), NOW_MS, np.ones(4, dtype=np.float32))])
    assert len(restored[0].graph) == 10


def test_a_snapshot_of_nothing_restores_an_index_that_fills(tmp_path: Path) -> None:
    emptied = small_index()
    emptied.delete([f"i{number}" for number in range(10)])
    for index in (ItemIndex(4), emptied):
        restored, _ = read_snapshot(write_snapshot(tmp_path, "v1", index, {}))
        assert len(restored) == 0
        restored.upsert([ItemEmbedding("new", ("t0",), NOW_MS, np.ones(4, dtype=np.float32))])
        query = np.ones((1, 4 + STREAMING), dtype=np.float32)
        assert restored.search(query, 5, None, NOW_MS)[0].item_ids == ["new"]
        assert restored.graph.search(np.ones(4, dtype=np.float32), 5).tolist() == [0]


def test_a_broken_snapshot_is_passed_over(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "v1", small_index(), {0: 5})
    newest = write_snapshot(tmp_path, "v1", small_index(), {0: 6})
    (newest / "graph.bin").write_bytes(b"torn")
    restored = read_newest_snapshot(tmp_path, "v1")
    assert restored is not None
    assert restored[1] == {0: 5}


def test_an_old_snapshot_is_passed_over(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path, "v1", small_index(), {0: 5})
    before_ns = int(path.name) - (OLDEST_S + 1) * 10**9
    path.rename(path.with_name(f"{before_ns:020d}"))
    assert read_newest_snapshot(tmp_path, "v1") is None


def test_a_torn_write_leaves_nothing_behind_that_counts(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path, "v1", small_index(), {0: 5})
    shutil.copytree(path, path.with_name(".00000000000000000099"))
    shutil.rmtree(path)
    assert read_newest_snapshot(tmp_path, "v1") is None


def test_old_snapshots_go(tmp_path: Path) -> None:
    for applied in range(4):
        write_snapshot(tmp_path, "v1", small_index(), {0: applied})
    assert len(list((tmp_path / "v1").iterdir())) == KEPT

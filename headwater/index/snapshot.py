"""Snapshots: immutable files of one index generation and the offsets they contain."""

import json
import logging
import shutil
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from headwater.durable import digest, publish_directory
from headwater.index.item_index import ItemIndex
from headwater.names import TOMBSTONE_RETENTION_S

FORMAT = 4
KEPT = 2
OLDEST_S = TOMBSTONE_RETENTION_S - 24 * 3600
"""Older ones are skipped: Kafka may have forgotten what was deleted since."""
MANIFEST = "manifest.json"
ITEMS = "items.json"
EMBEDDINGS = "embeddings.npy"
ARRAYS = "arrays.npz"
GRAPH = "graph.bin"

log = logging.getLogger(__name__)


class SnapshotManifest(BaseModel):
    """What a snapshot holds; `applied` maps partition to the next offset of `item-embeddings` to read."""

    format: int = FORMAT
    version: str
    dimension: int
    items: int
    applied: dict[int, int]
    files: dict[str, str]


def write_snapshot(directory: Path, version: str, index: ItemIndex, applied: Mapping[int, int]) -> Path:
    """Write a snapshot of an index that does not change meanwhile, and keep the newest `KEPT`.

    Other threads wait while hnswlib writes the graph.

    Returns:
        Its directory, `directory/version/<time>`.

    Raises:
        OSError: the disk is full, or the like; nothing is left of it.
    """
    # 1. Write beside, 2. make durable, 3. rename: a reader sees a whole snapshot or none.
    target = directory / version / f"{time.time_ns():020d}"
    temporary = target.with_name(f".{target.name}")
    temporary.mkdir(parents=True)
    try:
        _write(temporary, version, index, applied)
        publish_directory(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in sorted(target.parent.glob("[!.]*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write(temporary: Path, version: str, index: ItemIndex, applied: Mapping[int, int]) -> None:
    block = index.everything
    topic_sets: dict[tuple[str, ...], int] = {}
    topic_set_of = [topic_sets.setdefault(topics, len(topic_sets)) for topics in index.topic_sets()]
    items = {"item_ids": block.item_ids, "topic_sets": list(topic_sets)}
    (temporary / ITEMS).write_text(json.dumps(items), encoding="utf-8")
    np.save(temporary / EMBEDDINGS, block.embeddings(), allow_pickle=False)
    hashes, nodes = index.graph.save(temporary / GRAPH)
    np.savez(
        temporary / ARRAYS,
        published_ms=block.published_ms(),
        topic_set_of=np.array(topic_set_of, dtype=np.int64),
        hashes=hashes,
        nodes=nodes,
    )
    manifest = SnapshotManifest(
        version=version,
        dimension=index.dimension,
        items=len(block),
        applied=dict(applied),
        files={path.name: digest(path) for path in sorted(temporary.iterdir())},
    )
    (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")


def read_newest_snapshot(directory: Path, version: str) -> tuple[ItemIndex, dict[int, int]] | None:
    """Return the newest whole snapshot of a version and its applied offsets; broken and old ones are skipped."""
    for path in sorted((directory / version).glob("[!.]*"), reverse=True):
        try:
            if time.time_ns() - int(path.name) > OLDEST_S * 10**9:
                raise ValueError("too old")
            return read_snapshot(path)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            log.error("skipping snapshot %s: %s", path, error)
    return None


def read_snapshot(path: Path) -> tuple[ItemIndex, dict[int, int]]:
    """Return the index in a snapshot and its applied offsets.

    Raises:
        ValueError: a file was changed, or is of another format.
        OSError, KeyError, RuntimeError: a file is missing, or cannot be read.
    """
    manifest = SnapshotManifest.model_validate_json((path / MANIFEST).read_bytes())
    if manifest.format != FORMAT:
        raise ValueError(f"snapshot format {manifest.format}, this release reads {FORMAT}")
    with ThreadPoolExecutor() as threads:
        found = threads.map(digest, map(path.joinpath, manifest.files))
    for (name, expected), digested in zip(manifest.files.items(), found, strict=True):
        if digested != expected:
            raise ValueError(f"{name} changed after it was written")
    items: dict[str, Any] = json.loads((path / ITEMS).read_text(encoding="utf-8"))
    item_ids, topic_sets = items["item_ids"], list(map(tuple, items["topic_sets"]))
    index = ItemIndex(manifest.dimension, version=manifest.version)
    with np.load(path / ARRAYS) as arrays:
        embeddings = np.load(path / EMBEDDINGS, mmap_mode="r")
        index.restore(item_ids, topic_sets, arrays["topic_set_of"], arrays["published_ms"], embeddings)
        index.graph.load(path / GRAPH, arrays["hashes"], arrays["nodes"])
    return index, manifest.applied


def remove_snapshots(directory: Path, version: str) -> None:
    """Delete all snapshots of a version."""
    shutil.rmtree(directory / version, ignore_errors=True)


def remove_leavings(directory: Path, versions: Collection[str]) -> None:
    """Delete the snapshots of all other versions, and what was being written when the writer was killed."""
    for path in (*directory.glob("*"), *directory.glob("*/.*")):
        if path.name not in versions:
            shutil.rmtree(path, ignore_errors=True)

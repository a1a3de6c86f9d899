"""The trainer's state on disk: model, users, corpus and the offsets they contain, all of one moment."""

import json
import logging
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch

from headwater.covisits import Covisits
from headwater.durable import publish_directory
from headwater.events import Item
from headwater.user_record import UserRecord, decode_user_record, encode_user_record
from training.batches import LearningSettings
from training.corpus import Activity, Corpus
from training.learner import Learner
from training.log import Offsets

FORMAT = 4
KEPT = 2
_LENGTHS = struct.Struct("<HI")

log = logging.getLogger(__name__)


def write_checkpoint(
    directory: Path, name: str, learner: Learner, users: dict[str, UserRecord], offsets: Offsets
) -> None:
    """Write a checkpoint that appears at once or not at all; keep the newest `KEPT`."""
    directory.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=directory))
    corpus = learner.corpus
    torch.save(learner.state(), temporary / "learner.pt")
    with (temporary / "users.bin").open("wb") as file:
        for user_id, record in users.items():
            key, value = user_id.encode(), encode_user_record(record)
            file.write(_LENGTHS.pack(len(key), len(value)) + key + value)
    with (temporary / "items.jsonl").open("wb") as file:
        file.writelines(item.to_wire() + b"\n" for item in corpus.items)
    size = len(corpus) + 1
    np.savez(
        temporary / "activity.npz",
        counts=corpus.counts[:size],
        engaged_ms=corpus.engaged_ms[:size],
        totals=corpus.totals[:size],
        alive=corpus.alive[:size],
    )
    np.savez(temporary / "covisits.npz", allow_pickle=False, **corpus.covisits.arrays())
    state = {"format": FORMAT, "offsets": offsets, "topics": corpus.topics}
    (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
    publish_directory(temporary, directory / name)
    for old in sorted(directory.glob("[!.]*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    for torn in directory.glob(".*"):
        shutil.rmtree(torn, ignore_errors=True)


def read_checkpoint(
    directory: Path, settings: LearningSettings
) -> tuple[Learner, dict[str, UserRecord], Offsets] | None:
    """Return the newest checkpoint that can be read, None where there is none."""
    for path in sorted(directory.glob("[!.]*"), reverse=True):
        try:
            return _read(path, settings)
        except (OSError, ValueError, KeyError, RuntimeError, struct.error) as error:
            log.error("checkpoint %s is passed over: %s", path, error)
    return None


def _read(path: Path, settings: LearningSettings) -> tuple[Learner, dict[str, UserRecord], Offsets]:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']}, this release reads {FORMAT}")
    corpus = Corpus()
    for topic in state["topics"]:
        corpus.add_topic(topic)
    with (path / "items.jsonl").open("rb") as lines:
        for line in lines:
            corpus.put(Item.model_validate_json(line))
    with np.load(path / "covisits.npz") as arrays:
        covisits = Covisits.of(arrays)
    with np.load(path / "activity.npz") as arrays:
        corpus.restore(Activity(arrays["counts"], arrays["engaged_ms"], arrays["totals"], covisits))
        corpus.alive[: len(arrays["alive"])] = arrays["alive"]
    learner = Learner(corpus, settings)
    learner.load_state(torch.load(path / "learner.pt", weights_only=True))
    offsets = {
        topic: {int(partition): offset for partition, offset in partitions.items()}
        for topic, partitions in state["offsets"].items()
    }
    return learner, _read_users(path / "users.bin"), offsets


def _read_users(path: Path) -> dict[str, UserRecord]:
    users, data, at = {}, path.read_bytes(), 0
    while at < len(data):
        key_length, value_length = _LENGTHS.unpack_from(data, at)
        at += _LENGTHS.size
        user_id = data[at : at + key_length].decode()
        at += key_length
        users[user_id] = decode_user_record(data[at : at + value_length])
        at += value_length
    return users

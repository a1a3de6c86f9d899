"""The trainer's state on disk: model, users, corpus and the offsets they contain, all of one moment."""

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwater.batched import batched
from headwater.covisits import Covisits
from headwater.durable import digest, publish_directory
from headwater.events import Item
from headwater.pairs import decode_pairs, encode_pairs
from headwater.user_record import decode_user_record
from headwater.users import Users
from training.batches import LearningSettings
from training.corpus import ACTIVITY_ARRAYS, RECORD_ARRAYS, Activity, Corpus
from training.learner import Learner
from training.log import Offsets
from training.staging import staging

FORMAT = 8
KEPT = 2
USERS_AT_ONCE = 10_000
FILES = ("learner.pt", "users.bin", "items.jsonl", "activity.npz", "covisits.npz")

log = logging.getLogger(__name__)


def write_checkpoint(directory: Path, name: str, learner: Learner, users: Users, offsets: Offsets) -> None:
    """Write a checkpoint that appears at once or not at all; keep the newest `KEPT`.

    Raises:
        HeadwaterError: the directory cannot be written.
    """
    with staging(directory) as temporary:
        _write(temporary, learner, users)
        state = {
            "format": FORMAT,
            "learning": _lasting(learner.settings),
            "offsets": offsets,
            "topics": learner.corpus.topics,
            "files": {name: digest(temporary / name) for name in FILES},
        }
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        publish_directory(temporary, directory / name)
    for old in sorted(directory.glob("[!.]*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _write(directory: Path, learner: Learner, users: Users) -> None:
    """Write all files but `state.json`."""
    corpus = learner.corpus
    try:
        torch.save(learner.state(), directory / "learner.pt")
    except RuntimeError as error:  # which is what it raises where the disk is full
        raise OSError(f"{directory / 'learner.pt'}: {error}") from error
    with (directory / "users.bin").open("wb") as file:
        user_ids = list(users.rows)
        for start in range(0, len(user_ids), USERS_AT_ONCE):
            part = user_ids[start : start + USERS_AT_ONCE]
            encoded = users.encoded([users.rows[user_id] for user_id in part])
            file.write(encode_pairs(zip(map(str.encode, part), encoded, strict=True)))
    with (directory / "items.jsonl").open("wb") as file:
        file.writelines(item.to_wire() + b"\n" for item in corpus.items)
    size = len(corpus) + 1
    arrays = {name: getattr(corpus, name)[:size] for name in (*ACTIVITY_ARRAYS, *RECORD_ARRAYS)}
    np.savez(directory / "activity.npz", allow_pickle=False, **arrays)
    np.savez(directory / "covisits.npz", allow_pickle=False, **corpus.covisits.arrays())


def _lasting(settings: LearningSettings) -> dict[str, Any]:
    """Return the settings that must stay the same over all refreshes of a model."""
    return {name: value for name, value in asdict(settings).items() if name not in ("seed", "live_for_ms")}


def read_checkpoint(directory: Path, settings: LearningSettings) -> tuple[Learner, Users, Offsets] | None:
    """Return the newest checkpoint that is whole and of a model trained with such settings, None where there is none."""
    for path in sorted(directory.glob("[!.]*"), reverse=True):
        try:
            return _read(path, settings)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            log.error("skipping checkpoint %s: %s", path, error)
    return None


def _read(path: Path, settings: LearningSettings) -> tuple[Learner, Users, Offsets]:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']}, this release reads {FORMAT}")
    others = [name for name, value in _lasting(settings).items() if state["learning"].get(name) != value]
    if others:
        raise ValueError(f"its model was trained with different settings: {', '.join(others)}")
    for name in FILES:
        if state["files"].get(name) != digest(path / name):
            raise ValueError(f"{name} is not the file that was written (sha256 differs)")
    corpus = Corpus()
    for topic in state["topics"]:
        corpus.add_topic(topic)
    with (path / "items.jsonl").open("rb") as lines:
        for line in lines:
            corpus.put(Item.model_validate_json(line))
    with np.load(path / "covisits.npz") as arrays:
        covisits = Covisits.of(arrays)
    with np.load(path / "activity.npz") as arrays:
        corpus.restore(Activity({name: arrays[name] for name in ACTIVITY_ARRAYS}, covisits))
        for name in RECORD_ARRAYS:
            getattr(corpus, name)[: len(arrays[name])] = arrays[name]
    learner = Learner(corpus, settings)
    learner.load_state(torch.load(path / "learner.pt", weights_only=True))
    offsets = {
        topic: {int(partition): offset for partition, offset in partitions.items()}
        for topic, partitions in state["offsets"].items()
    }
    return learner, _read_users(path / "users.bin"), offsets


def _read_users(path: Path) -> Users:
    users = Users()
    for part in batched(decode_pairs(path.read_bytes()), USERS_AT_ONCE):
        users.put({key.decode(): decode_user_record(value) for key, value in part})
    return users

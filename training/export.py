"""From towers to a published bundle, checked against ONNX Runtime."""

import logging
import warnings
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import torch

from headwater.bundle import Manifest, Tower, bundle_versions, publish_bundle, tensor_specs
from headwater.covisit_features import COVISITS
from headwater.errors import BundleRefused
from headwater.events import Item
from headwater.features import HISTORY, ITEM_INPUTS, STREAMING, USER_INPUTS, Features, encode_items
from headwater.names import GOLDEN_FILE, ITEM_TOWER_FILE, USER_TOWER_FILE, VOCABULARY_FILE
from headwater.query_features import Query, encode_queries
from headwater.user_state import UserState
from headwater.vocabulary import Vocabulary
from training.learner import Learner
from training.ranker import Ranker, Shortlist
from training.staging import staging
from training.towers import Towers

PARITY = 1e-5
GOLDEN_ROWS = 64
OPSET = 18


def new_version(repository: Path) -> str:
    """Return the time as a version that sorts after all in the repository, even where the clock was set back."""
    now = datetime.now(UTC)
    for version in bundle_versions(repository):
        with suppress(ValueError):  # it has another name
            now = max(now, datetime.strptime(version, "%Y%m%dT%H%M%S%f%z") + timedelta(milliseconds=1))
    return now.strftime("%Y%m%dT%H%M%S%f")[:-3] + "Z"


def export_bundle(
    learner: Learner,
    repository: Path,
    states: list[UserState],
    now_ms: int,
    offsets: dict[str, dict[int, int]],
    metrics: dict[str, float],
) -> Path:
    """Publish a learner's towers.

    Args:
        learner: Has the towers; only items with enough engagements keep an embedding of their own.
        repository: The model repository.
        states: Users for the golden inputs.
        now_ms: The time the golden inputs are encoded for.
        offsets: The first records that the model was not trained on.
        metrics: For the manifest.

    Returns:
        The bundle's directory.

    Raises:
        BundleRefused: ONNX Runtime and torch differ by more than `PARITY`.
        HeadwaterError: the repository cannot be written.
    """
    vocabulary, towers = _compact(learner)
    golden = learner.corpus.items[:GOLDEN_ROWS]
    with staging(repository) as directory:
        _write(directory, vocabulary, towers, _golden_queries(states, vocabulary), golden, now_ms)
        manifest = Manifest(
            version=new_version(repository),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            fusion=learner.towers.sizes.fusion,
            dimension=learner.settings.dimension,
            topical=learner.towers.sizes.steered,
            tensors={name: tensor_specs(directory / name) for name in (USER_TOWER_FILE, ITEM_TOWER_FILE)},
            training_offsets=offsets,
            metrics=metrics,
        )
        return publish_bundle(directory, repository, manifest)


def _write(
    directory: Path, vocabulary: Vocabulary, towers: Towers, queries: list[Query], golden: list[Item], now_ms: int
) -> None:
    """Write a bundle's files, all but the manifest."""
    vocabulary.write(directory / VOCABULARY_FILE)
    users, items = encode_queries(queries, now_ms, vocabulary), encode_items(golden, vocabulary)
    user_inputs = tuple(torch.from_numpy(users[name]) for name in USER_INPUTS)
    item_inputs = tuple(torch.from_numpy(items[name]) for name in ITEM_INPUTS)
    _export(towers.user, user_inputs, list(USER_INPUTS), directory / USER_TOWER_FILE)
    _export(towers.item, item_inputs, list(ITEM_INPUTS), directory / ITEM_TOWER_FILE)
    with torch.no_grad():
        user_output, item_output = towers.user(*user_inputs).numpy(), towers.item(*item_inputs).numpy()
    _check_parity(directory / USER_TOWER_FILE, users, user_output)
    _check_parity(directory / ITEM_TOWER_FILE, items, item_output)
    _write_golden(directory / GOLDEN_FILE, users, items, user_output, item_output)


def _compact(learner: Learner) -> tuple[Vocabulary, Towers]:
    """Return the vocabulary of items with enough engagements, and towers with just its rows."""
    corpus = learner.corpus
    numbers = np.arange(1, len(corpus) + 1)
    kept = numbers[learner.ids.rows(numbers) > 0]
    vocabulary = Vocabulary(tuple(corpus.topics), tuple(corpus.items[number - 1].item_id for number in kept.tolist()))
    sizes = replace(learner.towers.sizes, topics=len(corpus.topics), items=len(kept))
    former = torch.from_numpy(np.concatenate(([0], learner.ids.rows(kept))))
    with learner.towers.for_serving() as served:
        towers = served.resized(sizes, former, torch.arange(len(former)))
    return vocabulary, towers.eval()


def _golden_queries(states: list[UserState], vocabulary: Vocabulary) -> list[Query]:
    topics = [None, *vocabulary.topics]
    chosen = states[:GOLDEN_ROWS] or [UserState()]
    return [Query(state, topics[place % len(topics)]) for place, state in enumerate(chosen)]


def export_ranker(ranker: Ranker, path: Path) -> None:
    """Write a ranker as ONNX: the fields of a `Shortlist` in, scores out, any B and N."""
    sizes = ranker.sizes
    example = Shortlist(
        torch.zeros(2, sizes.dimension + STREAMING + COVISITS),
        torch.zeros(2, HISTORY, sizes.own),
        torch.zeros(2, HISTORY),
        torch.zeros(2, 3, sizes.dimension),
        torch.zeros(2, 3, STREAMING),
        torch.zeros(2, 3, COVISITS),
        torch.zeros(2, 3),
    )
    _export(ranker, example, list(Shortlist._fields), path, listed=4)


def _export(
    tower: torch.nn.Module, inputs: tuple[torch.Tensor, ...], names: list[str], path: Path, listed: int = 0
) -> None:
    """Write a module as ONNX for any batch; the last `listed` inputs are of any second dimension, too."""
    batch = {0: torch.export.Dim("batch")}
    pairs = {**batch, 1: torch.export.Dim("listed")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower,
            tuple(inputs),
            str(path),
            input_names=names,
            output_names=[path.stem.replace("tower", "embedding")],
            dynamic_shapes=(batch,) * (len(inputs) - listed) + (pairs,) * listed,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _check_parity(path: Path, features: Features, expected: np.ndarray) -> None:
    error = float(np.abs(Tower(path).embed(features) - expected).max(initial=0.0))
    if not error <= PARITY * max(1.0, float(np.abs(expected).max(initial=0.0))):
        raise BundleRefused(f"{path.name}: ONNX Runtime differs from torch by {error:.2g}; at most {PARITY} is allowed")


def _write_golden(
    path: Path, users: Features, items: Features, user_output: np.ndarray, item_output: np.ndarray
) -> None:
    arrays: dict[str, np.ndarray] = {f"user_input/{name}": value for name, value in users.items()}
    arrays |= {f"item_input/{name}": value for name, value in items.items()}
    np.savez(path, allow_pickle=False, user_output=user_output, item_output=item_output, **arrays)

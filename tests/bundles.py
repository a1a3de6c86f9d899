"""A small, untrained, deterministic model bundle with real ONNX towers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import onnx
from headwater.bundle import Manifest, Tower, publish_bundle
from headwater.covisit_features import COVISITS
from headwater.events import Item
from headwater.features import STREAMING, USER_INPUTS, encode_items
from headwater.names import GOLDEN_FILE, ITEM_TOWER_FILE, USER_TOWER_FILE, VOCABULARY_FILE
from headwater.query_features import Query, encode_queries
from headwater.user_state import EMPTY
from headwater.vocabulary import Vocabulary
from onnx import TensorProto, helper, numpy_helper

POPULARITY_WEIGHT = 0.1
COVISIT_WEIGHT = 0.01


def make_bundle(
    repository: Path, version: str, topics: Sequence[str], seed: int = 0, dimension: int = 8, items: Sequence[str] = ()
) -> Path:
    """Publish a bundle whose user tower looks for the condition's own direction and likes popularity.

    Items of a topic lie in that topic's direction, so that conditional retrieval finds them.
    """
    random = np.random.default_rng(seed)
    directions = random.normal(size=(len(topics) + 1, dimension)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[0] = 0.0
    looks = (random.normal(size=(len(items) + 1, dimension)) * 0.1).astype(np.float32)
    looks[0] = 0.0
    streaming = np.full((len(topics) + 1, STREAMING), POPULARITY_WEIGHT, dtype=np.float32)
    covisits = np.full((len(topics) + 1, COVISITS), COVISIT_WEIGHT, dtype=np.float32)
    vocabulary = Vocabulary(tuple(topics), tuple(items))

    repository.mkdir(parents=True, exist_ok=True)
    staging = repository / f".staging-{version}"
    staging.mkdir()
    _save_user_tower(staging / USER_TOWER_FILE, np.hstack((directions, streaming, covisits)))
    _save_item_tower(staging / ITEM_TOWER_FILE, directions, looks)
    vocabulary.write(staging / VOCABULARY_FILE)
    _save_golden(staging, vocabulary)
    manifest = Manifest(version=version, created_at="2026-01-01T00:00:00Z", dimension=dimension)
    return publish_bundle(staging, repository, manifest)


def _save_user_tower(path: Path, table: np.ndarray) -> None:
    inputs = [helper.make_tensor_value_info("condition", TensorProto.INT64, ["batch"])]
    nodes = [helper.make_node("Gather", ["table", "condition"], ["embedding"])]
    _save(path, inputs, nodes, {"table": table}, table.shape[1])


def _save_item_tower(path: Path, directions: np.ndarray, looks: np.ndarray) -> None:
    inputs = [
        helper.make_tensor_value_info("item", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("topics", TensorProto.INT64, ["batch", "topics"]),
    ]
    nodes = [
        helper.make_node("Gather", ["directions", "topics"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axis"], ["topical"], keepdims=0),
        helper.make_node("Gather", ["looks", "item"], ["own"]),
        helper.make_node("Add", ["topical", "own"], ["embedding"]),
    ]
    constants = {"directions": directions, "looks": looks, "axis": np.array([1], dtype=np.int64)}
    _save(path, inputs, nodes, constants, directions.shape[1])


def _save(path: Path, inputs: list[Any], nodes: list[Any], constants: dict[str, np.ndarray], width: int) -> None:
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tower", inputs, [output], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _save_golden(staging: Path, vocabulary: Vocabulary) -> None:
    queries = encode_queries([Query(EMPTY, topic) for topic in (None, *vocabulary.topics)], 0, vocabulary)
    items = [Item(item_id=f"golden-{topic}", topics=(topic,), published_at=10**12) for topic in vocabulary.topics]
    features = encode_items(items, vocabulary)
    assert set(queries) == set(USER_INPUTS)
    arrays: dict[str, np.ndarray] = {f"user_input/{name}": value for name, value in queries.items()}
    arrays |= {f"item_input/{name}": value for name, value in features.items()}
    arrays["user_output"] = Tower(staging / USER_TOWER_FILE).embed(queries)
    arrays["item_output"] = Tower(staging / ITEM_TOWER_FILE).embed(features)
    np.savez(staging / GOLDEN_FILE, allow_pickle=False, **arrays)

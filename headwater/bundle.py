"""Model bundles: what the trainer publishes and the server checks before it serves."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from headwater.covisit_features import COVISITS
from headwater.durable import digest, publish_directory
from headwater.errors import BundleError, BundleNotFound, BundleRefused
from headwater.features import FEATURE_SCHEMA_HASH, STREAMING, Features
from headwater.names import GOLDEN_FILE, ITEM_TOWER_FILE, MANIFEST_FILE, USER_TOWER_FILE, VOCABULARY_FILE
from headwater.vocabulary import Vocabulary

GOLDEN_TOLERANCE = 1e-4
READABLE = 0o755
FILES = (USER_TOWER_FILE, ITEM_TOWER_FILE, VOCABULARY_FILE, GOLDEN_FILE)
Embeddings = npt.NDArray[np.float32]


class Manifest(BaseModel):
    """`manifest.json` of a bundle.

    Attributes:
        version: The bundle's name; later versions sort after earlier ones.
        fusion: How the condition enters the user tower.
        dimension: D of the static item embedding.
        topical: Number of leading dimensions of it that a condition alone determines; 0 where the fusion mixes it in.
        streaming: Number of streaming dimensions after them.
        covisits: Number of co-visitation dimensions after those.
        training_offsets: Kafka topic to partition to next offset the model has not seen.
        metrics: What the trainer measured on the newest slice.
        files: File name to sha256.
    """

    version: str
    created_at: str
    feature_schema: str = FEATURE_SCHEMA_HASH
    fusion: str = ""
    dimension: int
    topical: int = 0
    streaming: int = STREAMING
    covisits: int = COVISITS
    tensors: dict[str, dict[str, list[str | int]]] = {}
    training_offsets: dict[str, dict[int, int]] = {}
    metrics: dict[str, float] = {}
    files: dict[str, str] = {}


class Tower:
    """One ONNX Runtime session that maps features to embeddings."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [each.name for each in self._session.get_inputs()]

    def embed(self, features: Features) -> Embeddings:
        """Return one embedding per row, float32; inputs the tower does not read are ignored."""
        embeddings: Embeddings = self._session.run(None, {name: features[name] for name in self._inputs})[0]
        return embeddings


@dataclass(frozen=True)
class Bundle:
    """A checked model version, ready to serve.

    Attributes:
        user_tower: Features of B queries to (B, D + STREAMING + COVISITS).
        item_tower: Features of N items to (N, D).
    """

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary
    user_tower: Tower
    item_tower: Tower

    @property
    def version(self) -> str:
        return self.manifest.version

    @classmethod
    def load(cls, path: Path, threads: int = 1) -> "Bundle":
        """Read and check a bundle.

        Raises:
            BundleNotFound: there is no such directory.
            BundleRefused: a file is missing, changed or cannot be read, the feature schema is another, or the
                golden outputs are not reproduced.
        """
        try:
            manifest = read_manifest(path)
            _check_files(path, manifest)
            if manifest.version != path.name:
                raise BundleRefused(f"{path.name}: its {MANIFEST_FILE} says that it is {manifest.version}")
            vocabulary = Vocabulary.read(path / VOCABULARY_FILE)
            towers = (Tower(path / name, threads) for name in (USER_TOWER_FILE, ITEM_TOWER_FILE))
            bundle = cls(path, manifest, vocabulary, *towers)
            bundle._check_golden()
        except BundleError:
            raise
        except Exception as error:  # there is no telling what broken files make the libraries raise
            raise BundleRefused(f"{path.name}: cannot be loaded: {error}") from error
        return bundle

    def _check_golden(self) -> None:
        with np.load(self.path / GOLDEN_FILE) as golden:
            for name, tower, width in (
                ("user", self.user_tower, self.manifest.dimension + self.manifest.streaming + self.manifest.covisits),
                ("item", self.item_tower, self.manifest.dimension),
            ):
                prefix = f"{name}_input/"
                features = {key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)}
                expected = golden[f"{name}_output"]
                actual = tower.embed(features)
                if actual.shape != expected.shape or actual.shape[1] != width:
                    raise BundleRefused(f"{self.version}: {name} tower gives {actual.shape[1]} dimensions, not {width}")
                error = float(np.abs(actual - expected).max(initial=0.0))
                if not error <= GOLDEN_TOLERANCE:
                    raise BundleRefused(f"{self.version}: {name} tower is {error:.2g} off its golden outputs")


def read_manifest(path: Path) -> Manifest:
    """Return a bundle's manifest.

    Raises:
        BundleNotFound, BundleRefused: as for `Bundle.load`.
    """
    try:
        return Manifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        raise BundleNotFound(f"{path}: no bundle here (no {MANIFEST_FILE})") from None
    except ValidationError as error:
        raise BundleRefused(f"{path.name}: {MANIFEST_FILE} is broken: {error.errors()[0]['msg']}") from None


def _check_files(path: Path, manifest: Manifest) -> None:
    if manifest.feature_schema != FEATURE_SCHEMA_HASH:
        raise BundleRefused(
            f"{path.name}: feature schema {manifest.feature_schema}, this release encodes {FEATURE_SCHEMA_HASH}; train again"
        )
    for name in FILES:
        if not (path / name).is_file():
            raise BundleRefused(f"{path.name}: {name} is missing")
        if manifest.files.get(name) != digest(path / name):
            raise BundleRefused(f"{path.name}: {name} is not the file that was published (sha256 differs)")


def publish_bundle(staging: Path, repository: Path, manifest: Manifest) -> Path:
    """Make the files in `staging` the bundle `manifest.version`; all of it appears at once or not at all.

    Returns:
        The bundle's directory in the model repository.
    """
    # 1. Complete the manifest. 2. Make every byte durable. 3. Rename: only now can any reader see it.
    complete = manifest.model_copy(update={"files": {name: digest(staging / name) for name in FILES}})
    (staging / MANIFEST_FILE).write_text(complete.model_dump_json(indent=2), encoding="utf-8")
    staging.chmod(READABLE)
    target = repository / manifest.version
    publish_directory(staging, target)
    return target


def bundle_versions(repository: Path) -> Iterator[str]:
    """Yield the versions in a model repository, oldest first."""
    if repository.is_dir():
        yield from sorted(path.parent.name for path in repository.glob(f"[!.]*/{MANIFEST_FILE}"))


def remove_bundle(repository: Path, version: str) -> None:
    """Delete a bundle's files."""
    shutil.rmtree(repository / version, ignore_errors=True)


def tensor_specs(path: Path) -> dict[str, list[str | int]]:
    """Return the inputs and outputs of an ONNX file: name to [dtype, *shape]."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return {each.name: [each.type, *each.shape] for each in (*session.get_inputs(), *session.get_outputs())}

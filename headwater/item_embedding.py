"""Item embeddings on the wire: topic `item-embeddings`, one record per item and bundle version."""

import json
import struct
from dataclasses import dataclass
from sys import intern

import numpy as np
import numpy.typing as npt

FORMAT = 1
_HEADER = struct.Struct("<BIH")


@dataclass(frozen=True, slots=True)
class ItemEmbedding:
    """An item as one bundle version sees it.

    Attributes:
        embedding: (D,) float32, the static dimensions.
        published_at: Epoch ms.
    """

    item_id: str
    topics: tuple[str, ...]
    published_at: int
    embedding: npt.NDArray[np.float32]


def embedding_key(version: str, item_id: str) -> bytes:
    """Return the Kafka key, unique to a version and an item; a null value under it is a tombstone."""
    return f"{version}/{item_id}".encode()


def parse_embedding_key(key: bytes) -> tuple[str, str]:
    """Return (version, item_id).

    Raises:
        ValueError: the key has no version.
    """
    version, slash, item_id = key.decode().partition("/")
    if not slash:
        raise ValueError(f"{key!r} is not version/item_id")
    return version, item_id


def encode_item_embedding(item: ItemEmbedding) -> bytes:
    """Return the record's value: a header, the metadata as JSON, the embedding as little-endian float32."""
    metadata = json.dumps({"topics": item.topics, "published_at": item.published_at}).encode()
    header = _HEADER.pack(FORMAT, len(metadata), len(item.embedding))
    return header + metadata + item.embedding.astype("<f4").tobytes()


def decode_item_embedding(item_id: str, value: bytes) -> ItemEmbedding:
    """Return the item in a record's value.

    Raises:
        ValueError: the bytes are truncated or of another format.
    """
    if len(value) < _HEADER.size or value[0] != FORMAT:
        raise ValueError("not an item embedding of this format")
    _, length, dimension = _HEADER.unpack_from(value)
    body = _HEADER.size + length
    if len(value) != body + 4 * dimension:
        raise ValueError("truncated item embedding")
    metadata = json.loads(value[_HEADER.size : body])
    embedding = np.frombuffer(value, dtype="<f4", offset=body).astype(np.float32)
    topics = tuple(map(intern, metadata["topics"]))
    return ItemEmbedding(item_id, topics, int(metadata["published_at"]), embedding)

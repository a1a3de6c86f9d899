"""Successions: an engagement and what the same user engaged with just before, the source of co-visitation."""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from headwater.covisit_features import DEPTH

KNOWN_NAMES = 20_000
_ENTRY = struct.Struct("<qqB")
_LENGTH = struct.Struct("<H")


class Succession(NamedTuple):
    """One engagement as it stood in its Kafka partition.

    Attributes:
        offset: Of the engagement; whoever counts successions skips what is not newer than the last one counted.
        before: Up to `DEPTH` items, newest first.
    """

    offset: int
    at_ms: int
    item_id: str
    before: tuple[str, ...]


def encode_successions(successions: Iterable[Succession]) -> bytes:
    """Return many successions as one Kafka record of `item-successions` (key: the partition)."""
    parts: list[bytes] = []
    for each in successions:
        parts.append(_ENTRY.pack(each.offset, each.at_ms, len(each.before)))
        parts += map(_with_length, (each.item_id, *each.before))
    return b"".join(parts)


@lru_cache(KNOWN_NAMES)
def _with_length(item_id: str) -> bytes:
    name = item_id.encode()
    return _LENGTH.pack(len(name)) + name


def decode_successions(data: bytes) -> list[Succession]:
    """Return the successions in one `item-successions` record.

    Raises:
        ValueError: the record is truncated or of another format.
    """
    successions, at = [], 0
    try:
        while at < len(data):
            offset, at_ms, count = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            if count > DEPTH:
                raise ValueError(f"a succession of {count} items")
            names = []
            for _ in range(count + 1):
                (length,) = _LENGTH.unpack_from(data, at)
                at += _LENGTH.size + length
                if at > len(data):
                    raise ValueError("truncated successions")
                names.append(data[at - length : at].decode())
            successions.append(Succession(offset, at_ms, names[0], tuple(names[1:])))
    except struct.error as error:
        raise ValueError(f"truncated successions: {error}") from None
    return successions

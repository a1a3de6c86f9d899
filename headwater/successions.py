"""Successions: an engagement and what the same user engaged with just before, the source of co-visitation."""

import struct
from typing import NamedTuple

from headwater.covisit_features import DEPTH

ENTRY = struct.Struct("<qqB")
"""Offset, time, number of preceding items whose ids follow the item's own."""
LENGTH = struct.Struct("<H")
"""Length of an id, written before it."""


class Succession(NamedTuple):
    """One engagement as it stood in its Kafka partition.

    Attributes:
        offset: Of the engagement; one that is not newer than the last one counted is skipped.
        before: Up to `DEPTH` items, newest first.
    """

    offset: int
    at_ms: int
    item_id: str
    before: tuple[str, ...]


def decode_successions(data: bytes) -> list[Succession]:
    """Return the successions in one `item-successions` record.

    Raises:
        ValueError: the record is truncated or of another format.
    """
    successions, at = [], 0
    try:
        while at < len(data):
            offset, at_ms, count = ENTRY.unpack_from(data, at)
            at += ENTRY.size
            if count > DEPTH:
                raise ValueError(f"a succession of {count} items")
            names = []
            for _ in range(count + 1):
                (length,) = LENGTH.unpack_from(data, at)
                at += LENGTH.size + length
                if at > len(data):
                    raise ValueError("truncated successions")
                names.append(data[at - length : at].decode())
            successions.append(Succession(offset, at_ms, names[0], tuple(names[1:])))
    except struct.error as error:
        raise ValueError(f"truncated successions: {error}") from None
    return successions

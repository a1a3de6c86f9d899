"""Successions: an engagement and what the same user engaged with just before, the source of co-visitation."""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from headwater.covisit_features import DEPTH
from headwater.events import Engagement
from headwater.fold import UserState

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


def succession(state: UserState, engagement: Engagement, offset: int) -> Succession:
    """Return an engagement that is folded into `state` with what came before it; nothing where it is forgotten."""
    before: tuple[str, ...] = ()
    for place in range(len(state.item_ids) - 1, 0, -1):
        if state.item_ids[place] == engagement.item_id and state.times_ms[place] == engagement.occurred_at:
            before = state.item_ids[max(0, place - DEPTH) : place][::-1]
            break
    return Succession(offset, engagement.occurred_at, engagement.item_id, before)


def encode_successions(successions: Iterable[Succession]) -> bytes:
    """Return many successions as one Kafka record of `item-successions` (key: the partition)."""
    parts = []
    for each in successions:
        parts.append(_ENTRY.pack(each.offset, each.at_ms, len(each.before)))
        for item_id in (each.item_id, *each.before):
            name = item_id.encode()
            parts += [_LENGTH.pack(len(name)), name]
    return b"".join(parts)


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

"""Item activity: decayed engagement counts, the source of the streaming features."""

import struct
from collections.abc import Iterable
from operator import mul
from typing import NamedTuple

from headwater.durations import DAY_MS, HOUR_MS, MINUTE_MS
from headwater.events import MAX_EPOCH_MS

HALF_LIVES_MS = (2 * MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS)
WINDOWS = len(HALF_LIVES_MS)
NO_ENGAGEMENT_MS = 2**60
"""`first_ms` of an item without engagements: larger than any time, so `min` with one returns that."""
FORMAT = 2
_RECORD = struct.Struct(f"<Bqqqq{WINDOWS}d")
_NONE = (0.0,) * WINDOWS


class ItemActivity(NamedTuple):
    """Engagements with one item that came through one Kafka partition.

    Attributes:
        counts: One count for each half-life in `HALF_LIVES_MS`, decayed to `as_of_ms`.
        as_of_ms: Epoch ms of the newest engagement.
        total: Engagements ever counted.
        offset: The newest applied offset of the partition.
        first_ms: Epoch ms of the oldest engagement.
    """

    counts: tuple[float, ...] = _NONE
    as_of_ms: int = 0
    total: int = 0
    offset: int = -1
    first_ms: int = NO_ENGAGEMENT_MS


def _decays(elapsed_ms: int) -> tuple[float, float, float, float, float]:
    """Return what is left of a count in each window; `elapsed_ms` is none or negative."""
    a, b, c, d, e = HALF_LIVES_MS
    return (
        2.0 ** (elapsed_ms / a),
        2.0 ** (elapsed_ms / b),
        2.0 ** (elapsed_ms / c),
        2.0 ** (elapsed_ms / d),
        2.0 ** (elapsed_ms / e),
    )


def decode_activity(data: bytes) -> ItemActivity:
    """Return the activity in `data`.

    Raises:
        ValueError: the bytes are of another format.
    """
    if len(data) != _RECORD.size or data[0] != FORMAT:
        raise ValueError("not an item activity of this format")
    _, as_of_ms, first_ms, total, offset, *counts = _RECORD.unpack(data)
    if not 0 <= as_of_ms <= MAX_EPOCH_MS:
        raise ValueError("an item activity beyond all times")
    return ItemActivity(tuple(counts), as_of_ms, total, offset, first_ms)


def encode_activity_frame(activities: Iterable[tuple[str, bytes]]) -> bytes:
    """Return many items' encoded activities as one Kafka record of `item-activity` (key: the partition)."""
    parts = []
    for item_id, activity in activities:
        name = item_id.encode()
        parts += [struct.pack("<H", len(name)), name, activity]
    return b"".join(parts)


def newest_ms(data: bytes) -> int:
    """Return `as_of_ms` of an encoded activity."""
    return int(_RECORD.unpack_from(data)[1])


def decode_activity_frame(data: bytes) -> list[tuple[str, ItemActivity]]:
    """Return the activities in one `item-activity` record.

    Raises:
        ValueError: the record is truncated or of another format.
    """
    activities, at = [], 0
    while at < len(data):
        if len(data) < at + 2:
            raise ValueError("truncated activity frame")
        (length,) = struct.unpack_from("<H", data, at)
        start = at + 2 + length
        at = start + _RECORD.size
        activities.append((data[start - length : start].decode(), decode_activity(data[start:at])))
    return activities


def summed(activities: Iterable[ItemActivity]) -> ItemActivity:
    """Return one item's activity over all partitions, decayed to the newest `as_of_ms`."""
    parts = [part for part in activities if part.total]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return ItemActivity()
    as_of_ms = max(part.as_of_ms for part in parts)
    decayed = [map(mul, part.counts, _decays(part.as_of_ms - as_of_ms)) for part in parts]
    counts = tuple(map(sum, zip(*decayed, strict=True)))
    first_ms = min(part.first_ms for part in parts)
    return ItemActivity(counts, as_of_ms, sum(part.total for part in parts), first_ms=first_ms)

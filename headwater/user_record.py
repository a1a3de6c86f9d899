"""A user's record in Redis: the state, and what has been applied to it so far; `user_encoding` encodes it."""

import struct
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from headwater.user_state import EMPTY, HISTORY_LENGTH, RECENT_EVENTS, TOPIC_LIMIT, TopicCounters, UserState

FORMAT = 1
DIGIT_IDS, DIGIT_TOPICS, NEAR_TIMES = 2, 4, 8
"""Flags in the format byte: item ids or topics are digits only, and times lie within `NEAR_MS`, so these are stored shorter."""
_FLAGS = DIGIT_IDS | DIGIT_TOPICS | NEAR_TIMES
NEAR_MS = 2**32
EVENT_HASH_BYTES = 6
TIME_BYTES, LATER_BYTES = 6, 4
HEADER = struct.Struct("<BiqIHHHII")
"""Format and flags, partition, offset, engagements; numbers of past items, topics and events; bytes of item ids and of topics."""
_LATER = [struct.Struct(f"<{count}I") for count in range(HISTORY_LENGTH + TOPIC_LIMIT + 1)]
_WEIGHTS = [struct.Struct(f"<{count}d") for count in range(TOPIC_LIMIT + 1)]
HEAD = slice(1, 13)
"""Partition and offset within an encoded record, which differ between successive records of a user."""


class UserRecord(NamedTuple):
    """One Redis value; everything needed to serve a user and to apply each engagement once.

    Attributes:
        state: The folded features.
        partition, offset: The newest applied Kafka record; older ones of that partition are repeats.
        recent_events: Hashes of the newest event ids, one after the other, newest last.
    """

    state: UserState = EMPTY
    partition: int = -1
    offset: int = -1
    recent_events: bytes = b""


def event_hash(event_id: str) -> bytes:
    """Return the hash by which duplicate events are recognised."""
    return blake2b(event_id.encode(), digest_size=EVENT_HASH_BYTES).digest()


def decode_user_record(data: bytes) -> UserRecord:
    """Return the record in `data`.

    Raises:
        ValueError: the bytes have another format, or some are missing.
    """
    if len(data) < HEADER.size or data[0] & ~_FLAGS != FORMAT:
        raise ValueError("not a user record of this format")
    flags, partition, offset, engagements, n_history, n_topics, n_events, n_ids, n_names = HEADER.unpack_from(data)
    near, n_times = flags & NEAR_TIMES, n_history + n_topics
    names_at = HEADER.size + n_ids
    times_at = names_at + n_names
    weights_at = times_at + (TIME_BYTES + LATER_BYTES * n_times if near else TIME_BYTES * n_times)
    events_at = weights_at + 8 * n_topics
    if len(data) != events_at + EVENT_HASH_BYTES * n_events:
        raise ValueError("not a whole user record")
    if n_history > HISTORY_LENGTH or n_topics > TOPIC_LIMIT or n_events > RECENT_EVENTS:
        raise ValueError("a user record with more entries than a user can have")
    ids = _texts(data[HEADER.size : names_at], n_history, flags & DIGIT_IDS)
    names = _texts(data[names_at:times_at], n_topics, flags & DIGIT_TOPICS)
    if len(ids) != n_history or len(names) != n_topics:
        raise ValueError("a user record with more or fewer texts than it says")
    times = _near_times(data, times_at, n_times) if near else _times(data, times_at, n_times)
    topics = TopicCounters(names, _WEIGHTS[n_topics].unpack_from(data, weights_at), times[n_history:])
    return UserRecord(UserState(ids, times[:n_history], topics, engagements), partition, offset, data[events_at:])


def _texts(data: bytes, count: int, digits: int) -> tuple[str, ...]:
    """Return `count` texts: lines, or, where all are digits, a nibble per digit and `a` between texts."""
    if not count:
        return ()
    return tuple(data.hex().split("a")[:count] if digits else data.decode().split("\n"))


def _near_times(data: bytes, at: int, count: int) -> tuple[int, ...]:
    """Return `count` times: the earliest of them in `TIME_BYTES`, then how much later each is, in `LATER_BYTES`."""
    begin = at + TIME_BYTES
    earliest_ms = int.from_bytes(data[at:begin], "little")
    return tuple(map(earliest_ms.__add__, _LATER[count].unpack_from(data, begin)))


def _times(data: bytes, at: int, count: int) -> tuple[int, ...]:
    """Return `count` times, each of `TIME_BYTES`."""
    whole = np.zeros((count, 8), dtype=np.uint8)
    whole[:, :TIME_BYTES] = np.frombuffer(data, np.uint8, count * TIME_BYTES, at).reshape(count, TIME_BYTES)
    return tuple(whole.view("<i8").ravel().tolist())

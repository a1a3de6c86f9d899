"""A user's record in Redis: the state, and what has been applied to it so far."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b

import numpy as np

from headwater.events import Engagement
from headwater.fold import EMPTY, TopicCounters, UserState, fold

FORMAT = 1
RECENT_EVENTS = 32
EVENT_HASH_BYTES = 6
TIME_BYTES = 6
_HEADER = struct.Struct("<BiqIHHHII")


class Outcome(Enum):
    """What became of one engagement."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One Redis value; everything needed to serve a user and to apply each engagement once.

    Attributes:
        state: The folded features.
        partition, offset: The newest applied Kafka record; older ones of that partition are repeats.
        recent_events: Hashes of the last `RECENT_EVENTS` event ids, one after the other, newest last.
    """

    state: UserState = EMPTY
    partition: int = -1
    offset: int = -1
    recent_events: bytes = b""

    def apply(
        self, engagement: Engagement, topics: tuple[str, ...], partition: int, offset: int
    ) -> tuple["UserRecord", Outcome]:
        """Return the record after one Kafka record, and what became of it.

        REPEATED: Kafka delivered an offset again that is applied already. DUPLICATE: another record
        carried the same event id.
        """
        if partition == self.partition and offset <= self.offset:
            return self, Outcome.REPEATED
        event = event_hash(engagement.event_id)
        if _holds(self.recent_events, event):
            return replace(self, partition=partition, offset=offset), Outcome.DUPLICATE
        record = UserRecord(
            state=fold(self.state, engagement, topics),
            partition=partition,
            offset=offset,
            recent_events=(self.recent_events + event)[-RECENT_EVENTS * EVENT_HASH_BYTES :],
        )
        return record, Outcome.APPLIED


def _holds(events: bytes, event: bytes) -> bool:
    at = events.find(event)
    while at > 0 and at % EVENT_HASH_BYTES:
        at = events.find(event, at + 1)
    return at >= 0


def event_hash(event_id: str) -> bytes:
    """Return the hash by which duplicates are found."""
    return blake2b(event_id.encode(), digest_size=EVENT_HASH_BYTES).digest()


def encode_user_record(record: UserRecord) -> bytes:
    """Return the compact binary form, about 1 KB for 50 engagements."""
    state = record.state
    ids = "\n".join(state.item_ids).encode()
    names = "\n".join(state.topics.topics).encode()
    header = _HEADER.pack(
        FORMAT,
        record.partition,
        record.offset,
        state.engagements,
        len(state.item_ids),
        len(state.topics.topics),
        len(record.recent_events) // EVENT_HASH_BYTES,
        len(ids),
        len(names),
    )
    return b"".join(
        (
            header,
            ids,
            names,
            _pack_times(state.times_ms + state.topics.as_of_ms),
            struct.pack(f"<{len(state.topics.weights)}d", *state.topics.weights),
            record.recent_events,
        )
    )


def decode_user_record(data: bytes) -> UserRecord:
    """Return the record in `data`.

    Raises:
        ValueError: the bytes are of another format.
    """
    if len(data) < _HEADER.size or data[0] != FORMAT:
        raise ValueError("not a user record of this format")
    _, partition, offset, engagements, n_history, n_topics, n_events, n_ids, n_names = _HEADER.unpack_from(data)
    at = _HEADER.size
    ids = tuple(data[at : at + n_ids].decode().split("\n")) if n_history else ()
    at += n_ids
    names = tuple(data[at : at + n_names].decode().split("\n")) if n_topics else ()
    at += n_names
    times = _unpack_times(data, at, n_history + n_topics)
    at += len(times) * TIME_BYTES
    weights = struct.unpack_from(f"<{n_topics}d", data, at)
    at += n_topics * 8
    state = UserState(
        item_ids=ids,
        times_ms=times[:n_history],
        topics=TopicCounters(names, weights, times[n_history:]),
        engagements=engagements,
    )
    return UserRecord(state, partition, offset, data[at : at + n_events * EVENT_HASH_BYTES])


def _pack_times(times_ms: Sequence[int]) -> bytes:
    whole = np.array(times_ms, dtype="<i8").view(np.uint8).reshape(-1, 8)
    return whole[:, :TIME_BYTES].tobytes()


def _unpack_times(data: bytes, at: int, count: int) -> tuple[int, ...]:
    whole = np.zeros((count, 8), dtype=np.uint8)
    whole[:, :TIME_BYTES] = np.frombuffer(data, np.uint8, count * TIME_BYTES, at).reshape(count, TIME_BYTES)
    return tuple(whole.view("<i8").ravel().tolist())

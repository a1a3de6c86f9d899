"""A user's record in Redis: the state, and what has been applied to it so far."""

import struct
from collections.abc import Sequence
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from headwater.events import Engagement
from headwater.fold import EMPTY, TopicCounters, UserState, fold

FORMAT = 1
DIGIT_IDS, DIGIT_TOPICS, NEAR_TIMES = 2, 4, 8
"""Beside the format: parts that are kept in a shorter form."""
_FORMS = DIGIT_IDS | DIGIT_TOPICS | NEAR_TIMES
NEAR_MS = 2**32
RECENT_EVENTS = 32
EVENT_HASH_BYTES = 6
TIME_BYTES = 6
_HEADER = struct.Struct("<BiqIHHHII")


class Outcome(Enum):
    """What became of one engagement."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REPEATED = "repeated"


class UserRecord(NamedTuple):
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
            return self._replace(partition=partition, offset=offset), Outcome.DUPLICATE
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
    """Return the compact binary form: below 900 bytes for 50 engagements with items whose ids are numbers."""
    state = record.state
    ids, short_ids = _packed_texts(state.item_ids)
    names, short_topics = _packed_texts(state.topics.topics)
    times, near = _packed_times(state.times_ms + state.topics.as_of_ms)
    form = FORMAT | DIGIT_IDS * short_ids | DIGIT_TOPICS * short_topics | NEAR_TIMES * near
    header = _HEADER.pack(
        form,
        record.partition,
        record.offset,
        state.engagements,
        len(state.item_ids),
        len(state.topics.topics),
        len(record.recent_events) // EVENT_HASH_BYTES,
        len(ids),
        len(names),
    )
    weights = struct.pack(f"<{len(state.topics.weights)}d", *state.topics.weights)
    return b"".join((header, ids, names, times, weights, record.recent_events))


def decode_user_record(data: bytes) -> UserRecord:
    """Return the record in `data`.

    Raises:
        ValueError: the bytes are of another format, or not all are there.
    """
    if len(data) < _HEADER.size or data[0] & ~_FORMS != FORMAT:
        raise ValueError("not a user record of this format")
    form, partition, offset, engagements, n_history, n_topics, n_events, n_ids, n_names = _HEADER.unpack_from(data)
    near, n_times = bool(form & NEAR_TIMES), n_history + n_topics
    times_bytes = TIME_BYTES + 4 * n_times if near else TIME_BYTES * n_times
    if len(data) != _HEADER.size + n_ids + n_names + times_bytes + 8 * n_topics + EVENT_HASH_BYTES * n_events:
        raise ValueError("not a whole user record")
    at = _HEADER.size
    ids = _texts(data[at : at + n_ids], n_history, digits=bool(form & DIGIT_IDS))
    at += n_ids
    names = _texts(data[at : at + n_names], n_topics, digits=bool(form & DIGIT_TOPICS))
    at += n_names
    if (len(ids), len(names)) != (n_history, n_topics):
        raise ValueError("a user record with more or fewer texts than it says")
    times = _times(data, at, n_times, near=near)
    at += times_bytes
    weights = struct.unpack_from(f"<{n_topics}d", data, at)
    at += n_topics * 8
    state = UserState(
        item_ids=ids,
        times_ms=times[:n_history],
        topics=TopicCounters(names, weights, times[n_history:]),
        engagements=engagements,
    )
    return UserRecord(state, partition, offset, data[at:])


def _packed_texts(texts: Sequence[str]) -> tuple[bytes, bool]:
    """Return texts one after the other, and whether they are digits alone: then each is a nibble, as is what parts them."""
    text = "\n".join(texts)
    if not (text.isascii() and text.replace("\n", "").isdigit()):
        return text.encode(), False
    nibbles = text.replace("\n", "a")
    return bytes.fromhex(nibbles + "a" if len(nibbles) % 2 else nibbles), True


def _texts(data: bytes, count: int, *, digits: bool) -> tuple[str, ...]:
    if not count:
        return ()
    return tuple(data.hex().split("a")[:count] if digits else data.decode().split("\n"))


def _packed_times(times_ms: Sequence[int]) -> tuple[bytes, bool]:
    """Return times one after the other, and whether they are near: then the earliest, and by how much each is later."""
    times = np.array(times_ms, dtype="<i8")
    if times_ms and max(times_ms) - (earliest_ms := min(times_ms)) < NEAR_MS:
        return earliest_ms.to_bytes(TIME_BYTES, "little") + (times - earliest_ms).astype("<u4").tobytes(), True
    return times.view(np.uint8).reshape(-1, 8)[:, :TIME_BYTES].tobytes(), False


def _times(data: bytes, at: int, count: int, *, near: bool) -> tuple[int, ...]:
    """Return so many times."""
    if near:
        earliest_ms = int.from_bytes(data[at : at + TIME_BYTES], "little")
        later = struct.unpack_from(f"<{count}I", data, at + TIME_BYTES)
        return tuple([earliest_ms + each for each in later])
    whole = np.zeros((count, 8), dtype=np.uint8)
    whole[:, :TIME_BYTES] = np.frombuffer(data, np.uint8, count * TIME_BYTES, at).reshape(count, TIME_BYTES)
    return tuple(whole.view("<i8").ravel().tolist())

"""Users' rows as records for Redis, compiled: a worker encodes one for every user that a batch touches."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import from_dtype, njit, types

from headwater.byte_writing import put_int, put_text
from headwater.fold import USER
from headwater.texts import EncodedTexts
from headwater.user_record import (
    DIGIT_IDS,
    DIGIT_TOPICS,
    EVENT_HASH_BYTES,
    FORMAT,
    HEADER,
    LATER_BYTES,
    NEAR_MS,
    NEAR_TIMES,
    TIME_BYTES,
)

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]

_HEADER_BYTES = HEADER.size
_SEPARATOR = 0xA
"""The nibble between texts of digits."""
_NEWLINE, _ZERO = b"\n0"
_WEIGHT_BYTES = 8
_USERS, _INT, _INTS, _BYTES = types.Array(from_dtype(USER), 1, "C"), types.int64, types.int64[::1], types.uint8[::1]
_TEXTS = _BYTES, _INTS, types.boolean[::1]


def encode_user_records(
    users: npt.NDArray[np.void], rows: Ints, items: EncodedTexts, topics: EncodedTexts
) -> list[bytes]:
    """Return users' records in a compact binary form: under 900 bytes for 50 engagements with numeric item ids.

    Args:
        users: Rows of `USER`.
        rows: (N,) rows to encode.
        items, topics: Item ids and topic names by number.
    """
    out = np.empty(_room(users, rows, items.begins, topics.begins), np.uint8)
    ends = np.zeros(len(rows) + 1, np.int64)
    _encode(users, rows, *items, *topics, out, ends)
    data, bounds = out[: ends[-1]].tobytes(), ends.tolist()
    return [data[begin:end] for begin, end in pairwise(bounds)]


@njit(_INT(_USERS, _INTS, _INTS, _INTS), cache=True, nogil=True)
def _room(users: npt.NDArray[np.void], rows: Ints, item_begins: Ints, topic_begins: Ints) -> int:
    """Return how many bytes the records take at most."""
    room = 0
    for row in rows:
        user = users[row]
        room += _HEADER_BYTES + TIME_BYTES + EVENT_HASH_BYTES * user.seen
        for place in range(user.past):
            room += item_begins[user.items[place] + 1] - item_begins[user.items[place]] + TIME_BYTES + 2
        for place in range(user.counted):
            room += topic_begins[user.topics[place] + 1] - topic_begins[user.topics[place]] + TIME_BYTES + 2
            room += _WEIGHT_BYTES
    return room


@njit(cache=True, nogil=True)
def _are_digits(numbers: Numbers, count: int, digits: npt.NDArray[np.bool_]) -> bool:
    for place in range(count):
        if not digits[numbers[place]]:
            return False
    return count > 0


@njit(cache=True, nogil=True)
def _put_texts(out: Bytes, at: int, numbers: Numbers, count: int, data: Bytes, begins: Ints) -> int:
    for place in range(count):
        if place:
            out[at] = _NEWLINE
            at += 1
        at = put_text(out, at, numbers[place], data, begins)
    return at


@njit(cache=True, nogil=True)
def _put_digits(out: Bytes, at: int, numbers: Numbers, count: int, data: Bytes, begins: Ints) -> int:
    """Write texts of digits as nibbles; a separator fills the last byte if their number is odd."""
    half = False
    for place in range(count):
        begin, end = begins[numbers[place]], begins[numbers[place] + 1]
        for byte in range(begin - (place > 0), end):
            nibble = _SEPARATOR if byte < begin else data[byte] - _ZERO
            if half:
                out[at] |= nibble
                at += 1
            else:
                out[at] = nibble << 4
            half = not half
    if half:
        out[at] |= _SEPARATOR
        at += 1
    return at


@njit(cache=True, nogil=True)
def _time_span(user: Any) -> tuple[int, int]:
    """Return the earliest and the latest time in a user's row, epoch ms."""
    earliest_ms, latest_ms = 2**62, 0
    for place in range(user.past):
        earliest_ms, latest_ms = min(earliest_ms, user.times_ms[place]), max(latest_ms, user.times_ms[place])
    for place in range(user.counted):
        earliest_ms, latest_ms = min(earliest_ms, user.as_of_ms[place]), max(latest_ms, user.as_of_ms[place])
    return earliest_ms, latest_ms


@njit(cache=True, nogil=True)
def _put_header(out: Bytes, at: int, flags: int, user: Any, id_bytes: int, name_bytes: int) -> None:
    """Write what `user_record.HEADER` describes."""
    at = put_int(out, at, flags, 1)
    at = put_int(out, at, user.partition, 4)
    at = put_int(out, at, user.position, 8)
    at = put_int(out, at, user.engagements, 4)
    at = put_int(out, at, user.past, 2)
    at = put_int(out, at, user.counted, 2)
    at = put_int(out, at, user.seen, 2)
    at = put_int(out, at, id_bytes, 4)
    put_int(out, at, name_bytes, 4)


@njit(types.void(_USERS, _INTS, *_TEXTS, *_TEXTS, _BYTES, _INTS), cache=True, nogil=True)
def _encode(
    users: npt.NDArray[np.void],
    rows: Ints,
    item_data: Bytes,
    item_begins: Ints,
    item_digits: npt.NDArray[np.bool_],
    topic_data: Bytes,
    topic_begins: Ints,
    topic_digits: npt.NDArray[np.bool_],
    out: Bytes,
    ends: Ints,
) -> None:
    """Write records one after the other, and where each ends."""
    weight, at = np.empty(1, np.float64), 0
    weight_bytes = weight.view(np.uint8)
    for n in range(len(rows)):
        user = users[rows[n]]
        flags, head, ids = FORMAT, at, at + _HEADER_BYTES
        at = ids
        if _are_digits(user.items, user.past, item_digits):
            flags |= DIGIT_IDS
            at = _put_digits(out, at, user.items, user.past, item_data, item_begins)
        else:
            at = _put_texts(out, at, user.items, user.past, item_data, item_begins)
        names = at
        if _are_digits(user.topics, user.counted, topic_digits):
            flags |= DIGIT_TOPICS
            at = _put_digits(out, at, user.topics, user.counted, topic_data, topic_begins)
        else:
            at = _put_texts(out, at, user.topics, user.counted, topic_data, topic_begins)
        times = at
        earliest_ms, latest_ms = _time_span(user)
        length, base = TIME_BYTES, 0
        if user.past + user.counted and latest_ms - earliest_ms < NEAR_MS:
            flags |= NEAR_TIMES
            at = put_int(out, at, earliest_ms, TIME_BYTES)
            length, base = LATER_BYTES, earliest_ms
        for place in range(user.past):
            at = put_int(out, at, user.times_ms[place] - base, length)
        for place in range(user.counted):
            at = put_int(out, at, user.as_of_ms[place] - base, length)
        for place in range(user.counted):
            weight[0] = user.weights[place]
            for byte in range(_WEIGHT_BYTES):
                out[at + byte] = weight_bytes[byte]
            at += _WEIGHT_BYTES
        for place in range(user.seen):
            at = put_int(out, at, user.events[place], EVENT_HASH_BYTES)
        ends[n + 1] = at
        _put_header(out, head, flags, user, names - ids, times - names)

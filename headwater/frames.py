"""Frames: many events of one partition in one Kafka record, since a record costs more than an event.

A frame's value is the keys and values of its events; the header `HEADER_FRAME` marks it as one. An event in a frame
is known by the record's offset and its place in the frame; both together are its position, which orders the events of a
partition whether framed or not.
"""

import struct
from collections.abc import Iterable, Sequence

from headwater.errors import InvalidEvent
from headwater.names import HEADER_FRAME

MAX_FRAME_EVENTS = 1024
MAX_FRAME_BYTES = 1_048_576
FORMAT = b"1"
_LENGTHS = struct.Struct("<HI")

Headers = Iterable[tuple[str, bytes | None]]
Event = tuple[bytes, bytes]
FRAME_HEADERS = ((HEADER_FRAME, FORMAT),)


def position(offset: int, place: int = 0) -> int:
    """Return where an event stands in its partition: larger for later ones."""
    return offset * MAX_FRAME_EVENTS + place


def encode_frame(events: Sequence[Event]) -> bytes:
    """Return the value of the record that carries events, each a key and a value, at most `MAX_FRAME_EVENTS`."""
    return b"".join(part for key, value in events for part in (_LENGTHS.pack(len(key), len(value)), key, value))


def is_frame(headers: Headers) -> bool:
    """Say whether a record with these headers is a frame."""
    return any(name == HEADER_FRAME for name, _ in headers or ())


def decode_frame(value: bytes | None) -> list[Event]:
    """Return the events in a frame.

    Raises:
        InvalidEvent: the frame is broken, too large, or empty; none of its events can be read.
    """
    if not value:
        raise InvalidEvent("empty", "the frame holds no event")
    if len(value) > MAX_FRAME_BYTES:
        raise InvalidEvent("too-large", f"a frame of {len(value)} bytes, at most {MAX_FRAME_BYTES} are read")
    events, at = list[Event](), 0
    while at < len(value):
        if at + _LENGTHS.size > len(value):
            raise InvalidEvent("broken-frame", f"the frame ends inside an event, at byte {at}")
        key_length, value_length = _LENGTHS.unpack_from(value, at)
        begin = at + _LENGTHS.size
        at = begin + key_length + value_length
        if at > len(value):
            raise InvalidEvent("broken-frame", f"the frame ends inside an event, at byte {begin}")
        events.append((value[begin : begin + key_length], value[begin + key_length : at]))
    if len(events) > MAX_FRAME_EVENTS:
        raise InvalidEvent("too-large", f"a frame of {len(events)} events, at most {MAX_FRAME_EVENTS} are read")
    return events


def events_in(
    key: bytes | None, value: bytes | None, headers: Headers
) -> list[tuple[bytes | None, bytes | None, Headers]]:
    """Return the events in a record with their keys and headers: those of a frame, or the record itself.

    A broken frame stays whole; whoever reads it as an event finds out why.
    """
    if not is_frame(headers):
        return [(key, value, headers)]
    try:
        return [(each, body, ()) for each, body in decode_frame(value)]
    except InvalidEvent:
        return [(key, value, headers)]

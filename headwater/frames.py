"""Frames: many events of one partition in one Kafka record, since a record costs more than an event.

A frame's value is the keys and values of its events; the header `HEADER_FRAME` marks it as one. An event in a frame
is known by the record's offset and its place in the frame; both together are its position, which orders the events of a
partition whether framed or not.
"""

from collections.abc import Iterable, Sequence

from headwater.errors import InvalidEvent
from headwater.names import HEADER_FRAME
from headwater.pairs import Pair, TruncatedPairs, decode_pairs, encode_pairs

MAX_FRAME_EVENTS = 1024
MAX_FRAME_BYTES = 1_048_576
FORMAT = b"1"

Headers = Iterable[tuple[str, bytes | None]]
Event = Pair
FRAME_HEADERS = ((HEADER_FRAME, FORMAT),)


def position(offset: int, place: int = 0) -> int:
    """Return where an event stands in its partition: larger for later ones."""
    return offset * MAX_FRAME_EVENTS + place


def encode_frame(events: Sequence[Event]) -> bytes:
    """Return the value of the record that carries events, each a key and a value, at most `MAX_FRAME_EVENTS`."""
    return encode_pairs(events)


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
    try:
        events = list(decode_pairs(value))
    except TruncatedPairs as error:
        raise InvalidEvent("broken-frame", f"the frame ends inside an event, at byte {error.at}") from None
    if len(events) > MAX_FRAME_EVENTS:
        raise InvalidEvent("too-large", f"a frame of {len(events)} events, at most {MAX_FRAME_EVENTS} are read")
    return events


def events_in(
    key: bytes | None, value: bytes | None, headers: Headers
) -> list[tuple[bytes | None, bytes | None, Headers]]:
    """Return the events in a record with their keys and headers: those of a frame, or the record itself.

    A broken frame stays whole; reading it as an event raises with the reason.
    """
    if not is_frame(headers):
        return [(key, value, headers)]
    try:
        return [(each, body, ()) for each, body in decode_frame(value)]
    except InvalidEvent:
        return [(key, value, headers)]

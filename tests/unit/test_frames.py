"""Frames: what goes in comes out, and what is broken is said to be."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.dead_letter import DeadLetter
from headwater.errors import InvalidEvent
from headwater.frames import FRAME_HEADERS, MAX_FRAME_EVENTS, decode_frame, encode_frame, events_in, position
from headwater.intake import read_engagement
from streams.record import Record

EVENTS = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=50)), min_size=1, max_size=40)


@given(EVENTS)
def test_frames_hold_what_was_put_in(events: list[tuple[bytes, bytes]]) -> None:
    assert decode_frame(encode_frame(events)) == events


@given(EVENTS, st.data())
def test_a_torn_frame_is_refused_or_ends_at_an_event(events: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    whole = encode_frame(events)
    torn = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        left = decode_frame(torn)
    except InvalidEvent as error:
        assert error.reason in ("empty", "broken-frame")
    else:
        assert left == events[: len(left)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"x", "broken-frame"),
        (struct.pack("<HI", 3, 2**31) + b"abc", "broken-frame"),
        (encode_frame([(b"u", b"{}")] * (MAX_FRAME_EVENTS + 1)), "too-large"),
        (encode_frame([(b"u", b"x" * 2_000_000)]), "too-large"),
    ],
)
def test_a_broken_frame_stays_whole_and_says_why(value: bytes | None, reason: str) -> None:
    record = Record("engagements", 2, 7, None, value, FRAME_HEADERS)
    assert record.events() == [record]
    assert events_in(None, value, FRAME_HEADERS) == [(None, value, FRAME_HEADERS)]
    with pytest.raises(InvalidEvent) as caught:
        read_engagement(None, value, FRAME_HEADERS, 0)
    assert caught.value.reason == reason


def test_events_of_a_partition_are_in_order_framed_or_not() -> None:
    single = Record("engagements", 0, 4, b"a", b"{}", (("ce_id", b"1"),))
    framed = Record("engagements", 0, 5, None, encode_frame([(b"a", b"1"), (b"b", b"2")]), FRAME_HEADERS)
    events = [*single.events(), *framed.events(), Record("engagements", 0, 6, b"c", b"{}")]
    assert [(event.key, event.value) for event in events] == [(b"a", b"{}"), (b"a", b"1"), (b"b", b"2"), (b"c", b"{}")]
    positions = [event.position for event in events]
    assert positions == sorted(set(positions)) == [position(4), position(5), position(5, 1), position(6)]
    assert events[0].headers == single.headers
    assert events[1].headers == ()


def test_dead_letters_of_one_frame_are_told_apart() -> None:
    framed = Record("engagements", 0, 5, None, encode_frame([(b"a", b"1"), (b"b", b"2")]), FRAME_HEADERS)
    letters = [event.rejected(InvalidEvent("invalid", "no")) for event in framed.events()]
    read = [DeadLetter.from_record(letter.key, letter.value, letter.headers()) for letter in letters]
    assert read == letters
    assert [(letter.key, letter.offset, letter.place) for letter in read] == [(b"a", 5, 0), (b"b", 5, 1)]

"""User records: exactly-once effect, the binary form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.events import Engagement
from headwater.fold import Outcome
from headwater.user_record import UserRecord, decode_user_record, event_hash
from headwater.user_state import HISTORY_LENGTH, RECENT_EVENTS, TOPIC_LIMIT, TopicCounters, UserState
from tests.folding import applied, encode_user_record

START_MS = 1_700_000_000_000
GOLDEN = (
    "010300000007000000000000000100000001000100010004000000020000006974c3a97431"
    "0068e5cf8b010068e5cf8b01000000000000f03f7e929d5a7cb7"
)


def engagement(number: int, item_id: str = "item") -> Engagement:
    return Engagement(event_id=f"e{number}", user_id="u", item_id=item_id, occurred_at=START_MS + number * 1000)


def test_each_offset_is_applied_once() -> None:
    first, outcome = applied(UserRecord(), engagement(1), ("t",), 3, 10)
    again, repeated = applied(first, engagement(1), ("t",), 3, 10)
    assert (outcome, repeated) == (Outcome.APPLIED, Outcome.REPEATED)
    assert again == first


def test_a_duplicate_event_moves_the_offset_only() -> None:
    first, _ = applied(UserRecord(), engagement(1), ("t",), 3, 10)
    second, outcome = applied(first, engagement(1), ("t",), 3, 11)
    assert outcome is Outcome.DUPLICATE
    assert second.offset == 11
    assert second.state == first.state


def test_duplicates_are_found_within_a_bounded_window() -> None:
    record = UserRecord()
    for number in range(RECENT_EVENTS + 1):
        record, _ = applied(record, engagement(number), (), 0, number)
    _, outcome = applied(record, engagement(0), (), 0, 1000)
    assert outcome is Outcome.APPLIED


@pytest.mark.parametrize(("before", "expected"), [(0, Outcome.DUPLICATE), (6, Outcome.DUPLICATE), (5, Outcome.APPLIED)])
def test_a_hash_counts_where_a_hash_begins(before: int, expected: Outcome) -> None:
    record = UserRecord(recent_events=b"x" * before + event_hash("e1") + b"x" * (12 - before))
    assert applied(record, engagement(1), (), 0, 1)[1] is expected


@given(
    events=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 400), st.just(2**23), st.integers(0, 2**32)),
            st.one_of(st.text("abc é/|", min_size=1, max_size=9), st.text("0123456789", min_size=1, max_size=9)),
        ),
        max_size=70,
    ),
    topic=st.sampled_from(["t{}", "{}", "0{}", "٣{}"]),
)
def test_binary_form_is_lossless(events: list[tuple[int, str]], topic: str) -> None:
    record = UserRecord()
    for offset, (number, item_id) in enumerate(events):
        record, _ = applied(record, engagement(number, item_id), (topic.format(number % 20),), 1, offset)
    assert decode_user_record(encode_user_record(record)) == record


@pytest.mark.parametrize(("ids", "size"), [(6 * "{}", 850), ("{}-é", 1050)])
def test_fifty_engagements_take_less_than_a_kilobyte_where_ids_are_digits(ids: str, size: int) -> None:
    record = UserRecord()
    for number in range(50):
        item_id = ids.format(*str(100_000 + number))
        record, _ = applied(record, engagement(number, item_id), (str(100 + number % 20),), 0, number)
    assert len(encode_user_record(record)) < size


def test_times_far_apart_are_kept() -> None:
    years = UserRecord()
    for number in (0, 10, 2**22):
        years, _ = applied(years, engagement(number, "1"), ("1",), 0, number)
    near, far = (decode_user_record(encode_user_record(each)) for each in (UserRecord(), years))
    assert near == UserRecord()
    assert far == years


@pytest.mark.parametrize(
    ("item_id", "topic", "form"),
    [
        (
            "ité",
            "t1",
            "090300000007000000000000000100000001000100010004000000020000006974c3a97431"
            "0068e5cf8b010000000000000000000000000000f03f7e929d5a7cb7",
        ),
        (
            "123",
            "45",
            "0f030000000700000000000000010000000100010001000200000001000000123a450068e5cf8b010000000000000000000000000000f03f7e929d5a7cb7",
        ),
    ],
)
def test_the_binary_form_stays(item_id: str, topic: str, form: str) -> None:
    record, _ = applied(
        UserRecord(), Engagement(event_id="e", user_id="u", item_id=item_id, occurred_at=START_MS), (topic,), 3, 7
    )
    assert encode_user_record(record).hex() == form


def test_records_without_shorter_forms_stay_readable() -> None:
    record, _ = applied(
        UserRecord(), Engagement(event_id="e", user_id="u", item_id="ité", occurred_at=START_MS), ("t1",), 3, 7
    )
    assert decode_user_record(bytes.fromhex(GOLDEN)) == record


@pytest.mark.parametrize("data", [b"", b"\x02" * 60, b"\x11" * 60, b"\x01"])
def test_another_format_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a user record"):
        decode_user_record(data)


def test_a_record_with_a_damaged_text_is_refused() -> None:
    engagement = Engagement(event_id="e", user_id="u", item_id="item-1", occurred_at=START_MS)
    record, _ = applied(UserRecord(), engagement, ("t1",), 3, 7)
    data = encode_user_record(record)
    for text in (b"item-1", b"t1"):
        with pytest.raises(ValueError, match="texts"):
            decode_user_record(data.replace(text, b"\n" + text[1:]))


@pytest.mark.parametrize(("past", "topics", "events"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_a_record_of_more_than_a_row_holds_is_refused(past: int, topics: int, events: int) -> None:
    full = UserRecord(
        UserState(
            tuple(f"i{number}" for number in range(HISTORY_LENGTH)),
            (START_MS,) * HISTORY_LENGTH,
            TopicCounters(tuple(map(str, range(TOPIC_LIMIT))), (1.0,) * TOPIC_LIMIT, (START_MS,) * TOPIC_LIMIT),
            HISTORY_LENGTH,
        ),
        0,
        0,
        b"123456" * RECENT_EVENTS,
    )
    data = bytearray(encode_user_record(full))
    assert decode_user_record(bytes(data)) == full
    for at, more in ((17, past), (19, topics), (21, events)):
        data[at] += more
    with pytest.raises(ValueError, match="record"):
        decode_user_record(bytes(data))

"""Malformed records: each gets a reason, none an unforeseen error."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import InvalidEvent
from headwater.events import CandidateRequest, Engagement, Item, epoch_ms
from headwater.intake import read_delivery, read_engagement, read_item
from headwater.wire import decode, encoded, validated
from serving.responder import MAX_REQUEST_BYTES

NOW_MS = 1_800_000_000_000
GOOD = {"event_id": "e", "user_id": "u", "item_id": "i", "occurred_at": 1_700_000_000_000}
ITEM = {"item_id": "i", "topics": ["t"], "published_at": 1_700_000_000_000}


def changed(base: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**base, **changes}.items() if value != "DROP"}).encode()


BAD_ENGAGEMENTS: dict[str, tuple[bytes | None, bytes | None, str]] = {
    "no value": (b"u", None, "empty"),
    "not JSON": (b"u", b"{not json", "malformed-json"),
    "empty value": (b"u", b"", "malformed-json"),
    "not an object": (b"u", b"[1, 2]", "invalid"),
    "not UTF-8": (b"u", b'{"event_id": "\xff"}', "malformed-json"),
    "user missing": (b"u", changed(GOOD, user_id="DROP"), "invalid"),
    "user null": (b"u", changed(GOOD, user_id=None), "invalid"),
    "user a list": (b"u", changed(GOOD, user_id=["u"]), "invalid"),
    "user empty": (b"", changed(GOOD, user_id=""), "invalid"),
    "user too long": (b"u", changed(GOOD, user_id="u" * 257), "invalid"),
    "control character": (b"u", changed(GOOD, item_id="a\nb"), "invalid"),
    "item a boolean": (b"u", changed(GOOD, item_id=True), "invalid"),
    "seconds for ms": (b"u", changed(GOOD, occurred_at=1_700_000_000), "invalid"),
    "time a word": (b"u", changed(GOOD, occurred_at="yesterday"), "invalid"),
    "time without offset": (b"u", changed(GOOD, occurred_at="2026-01-01T00:00:00"), "invalid"),
    "time a fraction": (b"u", changed(GOOD, occurred_at=1.5), "invalid"),
    "from the future": (b"u", changed(GOOD, occurred_at=NOW_MS + 10**9), "from-the-future"),
    "action with spaces": (b"u", changed(GOOD, action="buy it"), "invalid"),
    "another user's key": (b"someone", changed(GOOD), "wrong-key"),
    "no key": (None, changed(GOOD), "wrong-key"),
    "huge": (b"u", changed(GOOD, surface="x" * 100_000), "too-large"),
    "deeply nested": (b"u", b"[" * 30_000, "malformed-json"),
}
BAD_ITEMS: dict[str, tuple[bytes | None, bytes | None, str]] = {
    "nothing at all": (None, None, "empty"),
    "tombstone not UTF-8": (b"\xff", None, "invalid"),
    "tombstone of a line": (b"a\nb", None, "invalid"),
    "tombstone without an end": (b"i" * 100_000, None, "invalid"),
    "topics a string": (b"i", changed(ITEM, topics="t"), "invalid"),
    "too many topics": (b"i", changed(ITEM, topics=[f"t{n}" for n in range(33)]), "invalid"),
    "attribute not a number": (
        b"i",
        b'{"item_id":"i","topics":[],"published_at":1700000000000,"attributes":{"a":NaN}}',
        "invalid",
    ),
    "attribute a list": (b"i", changed(ITEM, attributes={"a": [1]}), "invalid"),
    "another item's key": (b"j", changed(ITEM), "wrong-key"),
    "published in the future": (b"i", changed(ITEM, published_at=NOW_MS + 1), "from-the-future"),
}


@pytest.mark.parametrize("name", BAD_ENGAGEMENTS)
def test_bad_engagement_has_a_reason(name: str) -> None:
    key, value, reason = BAD_ENGAGEMENTS[name]
    with pytest.raises(InvalidEvent) as caught:
        read_engagement(key, value, (), NOW_MS)
    assert caught.value.reason == reason
    assert str(caught.value)


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_bad_item_has_a_reason(name: str) -> None:
    key, value, reason = BAD_ITEMS[name]
    with pytest.raises(InvalidEvent) as caught:
        read_item(key, value, (), NOW_MS)
    assert caught.value.reason == reason


@given(st.binary(max_size=200))
def test_no_bytes_cause_another_error(value: bytes) -> None:
    with pytest.raises(InvalidEvent):
        read_engagement(b"u", value, (), NOW_MS)


def test_good_engagement_and_unknown_fields() -> None:
    engagement = read_engagement(b"u", changed(GOOD, future_field=1), (), NOW_MS)
    assert engagement == Engagement.model_validate(GOOD)


def test_numbers_are_ids_too() -> None:
    assert read_engagement(b"7", changed(GOOD, user_id=7), (), NOW_MS).user_id == "7"


def test_cloudevents_headers_fill_in() -> None:
    body = changed(GOOD, event_id="DROP", occurred_at="DROP")
    headers = (("ce_id", b"42"), ("ce_source", b"/app"), ("ce_time", b"2026-01-01T00:00:00Z"), ("other", b"\xff"))
    engagement = read_engagement(b"u", body, headers, NOW_MS)
    assert engagement.event_id == "/app#42"
    assert engagement.occurred_at == epoch_ms("2026-01-01T00:00:00Z")


def test_cloudevents_headers_that_are_not_text() -> None:
    with pytest.raises(InvalidEvent):
        read_engagement(b"u", changed(GOOD), (("ce_id", b"\xff"),), NOW_MS)


def test_tombstone() -> None:
    assert read_item(b"i", None, (), NOW_MS) == ("i", None)


def test_headers_without_a_value_say_nothing() -> None:
    event = read_engagement(b"u", changed(GOOD), [("ce_subject", None)], NOW_MS)
    assert event.event_id == "e"


def test_a_delivery_belongs_to_the_user_in_its_key() -> None:
    value = changed({"delivery_id": "d", "user_id": "u", "item_ids": ["i"], "delivered_at": 1_700_000_000_000})
    assert read_delivery(b"u", value, ()).item_ids == ("i",)
    with pytest.raises(InvalidEvent) as caught:
        read_delivery(b"v", value, ())
    assert caught.value.reason == "wrong-key"


def test_a_request_may_have_as_many_users_as_its_schema_says() -> None:
    users = [f"{number:036}" for number in range(10_000)]
    value = json.dumps({"request_id": "r", "topic": "t", "user_ids": users}).encode()
    assert len(decode(CandidateRequest, value, (), MAX_REQUEST_BYTES).user_ids) == 10_000


def test_what_is_larger_than_what_is_read_is_not_sent() -> None:
    item = Item(item_id="i", topics=(), published_at=NOW_MS, attributes={f"a{n}": "x" * 4000 for n in range(20)})
    with pytest.raises(InvalidEvent) as caught:
        encoded(item)
    assert caught.value.reason == "too-large"
    assert decode(Item, encoded(item.model_copy(update={"attributes": {}}))).item_id == "i"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({**ITEM, "topics": "t"}, "topics: Input should be a list"),
        ({**ITEM, "topics": ["t"] * 33}, "topics: List should have at most 32 items, not 33"),
        ({**ITEM, "attributes": [1]}, "attributes: Input should be an object"),
        ({**ITEM, "item_id": True}, "item_id: must be a string or an integer, of 1 to 256 printable characters"),
        ([1], "record: Input should be an object"),
    ],
)
def test_reasons_are_in_words_of_json(item: Any, words: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        validated(Item, item)
    assert str(caught.value) == words

"""What was delivered to a user."""

from headwater.delivered import Delivered, decode_delivered, encode_delivered
from headwater.events import Delivery

NOW_MS = 1_700_000_000_000


def delivery(*item_ids: str) -> Delivery:
    return Delivery(delivery_id="d", user_id="u", item_ids=item_ids, delivered_at=NOW_MS)


def test_the_longest_delivery_is_remembered_whole() -> None:
    longest = [f"i{number}" for number in range(1000)]
    record = Delivered().apply(delivery("before"), 0, 0).apply(delivery(*longest), 0, 1)
    assert record.item_ids == tuple(longest)
    assert decode_delivered(encode_delivered(record)) == record


def test_an_offset_counts_once_and_an_item_moves_to_the_end() -> None:
    record = Delivered().apply(delivery("a", "b"), 0, 5).apply(delivery("a"), 0, 6)
    assert record.item_ids == ("b", "a")
    assert record.apply(delivery("c"), 0, 6) is record

"""Validation of incoming records, shared by the stream and the trainer."""

from headwater.errors import InvalidEvent
from headwater.events import Delivery, Engagement, Item, now_ms
from headwater.frames import Headers, decode_frame, is_frame
from headwater.settings import Settings
from headwater.wire import decode, identifier


def latest_ms(settings: Settings) -> int:
    """Return the epoch ms after which an event is refused now."""
    return now_ms() + settings.max_future_s * 1000


def read_engagement(key: bytes | None, value: bytes | None, headers: Headers, latest_ms: int) -> Engagement:
    """Return the engagement in a record.

    Args:
        key, value, headers: The record's.
        latest_ms: An engagement after this epoch ms is refused.

    Raises:
        InvalidEvent: with the reason.
    """
    if is_frame(headers):
        decode_frame(value)  # raises with the reason: a valid frame has been split into its events before this
    engagement = decode(Engagement, value, headers)
    if engagement.occurred_at > latest_ms:
        raise InvalidEvent("from-the-future", f"occurred_at {engagement.occurred_at} is ahead of the clock")
    _require_user_key(key, engagement.user_id)
    return engagement


def read_delivery(key: bytes | None, value: bytes | None, headers: Headers) -> Delivery:
    """Return the delivery in a record.

    Raises:
        InvalidEvent: with the reason.
    """
    delivery = decode(Delivery, value, headers)
    _require_user_key(key, delivery.user_id)
    return delivery


def read_item(key: bytes | None, value: bytes | None, headers: Headers, latest_ms: int) -> tuple[str, Item | None]:
    """Return an item's id and the item in a record, None for a tombstone.

    Args:
        key, value, headers: The record's.
        latest_ms: An item published after this epoch ms is refused: it would be the newest of its topics until then.

    Raises:
        InvalidEvent: with the reason.
    """
    if value is None:
        return _tombstone_id(key), None
    item = decode(Item, value, headers)
    if key is not None and key != item.item_id.encode():
        raise InvalidEvent("wrong-key", "the key must be the item_id, or the log cannot be compacted")
    if item.published_at > latest_ms:
        raise InvalidEvent("from-the-future", f"published_at {item.published_at} is ahead of the clock")
    return item.item_id, item


def _require_user_key(key: bytes | None, user_id: str) -> None:
    if key != user_id.encode():
        raise InvalidEvent("wrong-key", "the key must be the user_id, so that one partition has all of a user")


def _tombstone_id(key: bytes | None) -> str:
    if not key:
        raise InvalidEvent("empty", "a record without key and value says nothing")
    try:
        return identifier("item_id", key.decode())
    except UnicodeDecodeError:
        raise InvalidEvent("invalid", "a tombstone's key must be in UTF-8") from None

"""The producer for engagements, items and deliveries."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError

from headwater.errors import DeliveryFailed
from headwater.events import Delivery, Engagement, Item
from headwater.names import DELIVERIES, ENGAGEMENTS, ITEMS
from headwater.settings import Settings
from headwater.topics import unreachable
from headwater.wire import validated

FLUSH_TIMEOUT_S = 60.0
LINGER_MS = 5


class EngagementProducer:
    """Validates events and appends them to Kafka, keyed so that one user's events keep their order.

    Sending is idempotent: a retry inside the producer never appends twice.

    Args:
        settings: Where Kafka is.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = settings.names
        embedded = settings.kafka_api_version is not None
        try:
            self._producer: KafkaProducer = KafkaProducer(
                **settings.kafka_options(),
                acks="all",
                enable_idempotence=not embedded,
                linger_ms=LINGER_MS,
                compression_type=None,
            )
        except (KafkaError, ValueError) as error:
            raise unreachable(settings, error) from None
        self._failures: list[str] = []

    def send(self, engagement: Engagement | Mapping[str, Any]) -> None:
        """Append an engagement.

        Raises:
            InvalidEvent: it does not validate; nothing was sent.
        """
        event = validated(Engagement, engagement)
        self._append(ENGAGEMENTS, event.user_id, event.to_wire())

    def send_item(self, item: Item | Mapping[str, Any]) -> None:
        """Publish or update an item.

        Raises:
            InvalidEvent: it does not validate; nothing was sent.
        """
        event = validated(Item, item)
        self._append(ITEMS, event.item_id, event.to_wire())

    def delete_item(self, item_id: str) -> None:
        """Append an item's tombstone."""
        self._append(ITEMS, item_id, None)

    def send_delivery(self, delivery: Delivery | Mapping[str, Any]) -> None:
        """Append what was delivered to a user.

        Raises:
            InvalidEvent: it does not validate; nothing was sent.
        """
        event = validated(Delivery, delivery)
        self._append(DELIVERIES, event.user_id, event.to_wire())

    def _append(self, topic: str, key: str, value: bytes | None) -> None:
        try:
            future = self._producer.send(self._names.topic(topic), key=key.encode(), value=value)
        except KafkaError as error:
            raise DeliveryFailed(f"{topic}: {type(error).__name__} {error}") from None
        future.add_errback(self._failed)

    def _failed(self, error: BaseException) -> None:
        self._failures.append(f"{type(error).__name__} {error}")

    def flush(self) -> None:
        """Wait until everything sent is acknowledged.

        Raises:
            DeliveryFailed: with the number of events that were not, and the first cause. What was
                acknowledged stays; sending the rest again is safe, duplicates are dropped by event id.
        """
        try:
            self._producer.flush(timeout=FLUSH_TIMEOUT_S)
        except KafkaError as error:
            self._failures.append(f"{type(error).__name__} {error}")
        if self._failures:
            failures, self._failures = self._failures, []
            raise DeliveryFailed(f"{len(failures)} events were not acknowledged, the first: {failures[0]}")

    def close(self) -> None:
        """Flush and disconnect."""
        try:
            self.flush()
        finally:
            self._producer.close(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

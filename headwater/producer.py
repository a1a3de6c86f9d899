"""The producer for engagements, items and deliveries."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from headwater.errors import DeliveryFailed
from headwater.events import Delivery, Engagement, Item
from headwater.frames import FRAME_HEADERS, Event, encode_frame
from headwater.names import DELIVERIES, ENGAGEMENTS, ITEMS
from headwater.reachable import kafka_unreachable
from headwater.settings import EMBEDDED_API_VERSION, Settings
from headwater.wire import encoded, identifier, validated

CLOSE_TIMEOUT_S = 5.0
FLUSH_TIMEOUT_S = 60.0
LINGER_MS = 5
FRAME_MS = 5
FRAME_EVENTS = 256
FRAME_BYTES = 65_536
HASHES_KEPT = 65_536

_hash = lru_cache(HASHES_KEPT)(murmur2)


@dataclass(slots=True)
class Frame:
    """Events collected for one record; `size` is the number of bytes of their values."""

    events: list[Event] = field(default_factory=list)
    size: int = 0


class EngagementProducer:
    """Validates events and appends them to Kafka, keyed so that one user's events keep their order.

    Engagements of one partition that come within `FRAME_MS` share a record, see `headwater.frames`. Sending is idempotent, except
    to the embedded broker: a retry inside the producer never appends twice. Any thread may send.

    Args:
        settings: Where Kafka is.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = settings.names
        embedded = settings.kafka_api_version == EMBEDDED_API_VERSION
        try:
            self._producer: KafkaProducer = KafkaProducer(
                **settings.kafka_options(),
                acks="all",
                enable_idempotence=not embedded,
                linger_ms=LINGER_MS,
                compression_type=None,
            )
        except (KafkaError, ValueError) as error:
            raise kafka_unreachable(settings, error) from None
        self._failures: list[str] = []
        self._frames: dict[int, Frame] = {}
        self._framing = threading.Condition()
        self._closed = False
        self._framer = threading.Thread(target=self._send_frames_in_time, name="framer", daemon=True)
        self._framer.start()

    def send(self, engagement: Engagement | Mapping[str, Any]) -> None:
        """Append an engagement; `flush` reports whether it was acknowledged.

        Raises:
            InvalidEvent: it does not validate, or is too large; nothing was sent.
            DeliveryFailed: the topic's partitions cannot be read from Kafka, or the producer is closed; nothing was sent.
        """
        event = validated(Engagement, engagement)
        key, value = event.user_id.encode(), encoded(event)
        with self._framing:
            self._require_open()
            partition = self._partition(key)
            frame = self._frames.get(partition)
            if frame is None:
                frame = self._frames[partition] = Frame()
                self._framing.notify()
            frame.events.append((key, value))
            frame.size += len(value)
            if len(frame.events) == FRAME_EVENTS or frame.size > FRAME_BYTES:
                self._send_frame(partition, self._frames.pop(partition))

    def _require_open(self) -> None:
        if self._closed:
            raise DeliveryFailed("this producer is closed; nothing was sent")

    def _partition(self, key: bytes) -> int:
        """Return the partition Kafka's own clients choose for a key."""
        try:
            partitions = self._producer.partitions_for(self._names.topic(ENGAGEMENTS))
        except KafkaError as error:
            raise DeliveryFailed(
                f"{ENGAGEMENTS}: {type(error).__name__} {error}; `headwater doctor` says whether the topic is there"
            ) from None
        return int(_hash(key) & 0x7FFFFFFF) % len(partitions)

    def _send_frame(self, partition: int, frame: Frame) -> None:
        """Append a frame; of a single event, the event itself."""
        count = len(frame.events)
        key, value = frame.events[0] if count == 1 else (None, encode_frame(frame.events))
        headers = () if count == 1 else FRAME_HEADERS
        try:
            self._append(ENGAGEMENTS, key, value, headers, partition, count)
        except DeliveryFailed as error:
            self._failures += [str(error)] * count

    def _send_frames(self) -> None:
        with self._framing:
            frames, self._frames = self._frames, {}
            for partition, frame in frames.items():
                self._send_frame(partition, frame)

    def _send_frames_in_time(self) -> None:
        while not self._closed:
            with self._framing:
                self._framing.wait_for(lambda: self._frames or self._closed)
            time.sleep(FRAME_MS / 1000)
            self._send_frames()

    def send_item(self, item: Item | Mapping[str, Any]) -> None:
        """Publish or update an item.

        Raises:
            InvalidEvent: it does not validate, or is too large; nothing was sent.
            DeliveryFailed: the producer is closed.
        """
        self._require_open()
        event = validated(Item, item)
        self._append(ITEMS, event.item_id.encode(), encoded(event))

    def delete_item(self, item_id: str) -> None:
        """Append an item's tombstone.

        Raises:
            InvalidEvent: it is no item id; nothing was sent.
            DeliveryFailed: the producer is closed.
        """
        self._require_open()
        self._append(ITEMS, identifier("item_id", item_id).encode(), None)

    def send_delivery(self, delivery: Delivery | Mapping[str, Any]) -> None:
        """Append what was delivered to a user.

        Raises:
            InvalidEvent: it does not validate, or is too large; nothing was sent.
            DeliveryFailed: the producer is closed.
        """
        self._require_open()
        event = validated(Delivery, delivery)
        self._append(DELIVERIES, event.user_id.encode(), encoded(event))

    def _append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        events: int = 1,
    ) -> None:
        try:
            future = self._producer.send(
                self._names.topic(topic), key=key, value=value, headers=list(headers), partition=partition
            )
        except KafkaError as error:
            raise DeliveryFailed(f"{topic}: {type(error).__name__} {error}") from None
        future.add_errback(lambda error: self._failures.extend([f"{type(error).__name__} {error}"] * events))

    def flush(self) -> None:
        """Wait until everything sent is acknowledged.

        Raises:
            DeliveryFailed: with the number of events that were not (after a time-out, at least), and the first cause. What
                was acknowledged stays; sending the rest again is safe, duplicates are dropped by event id.
        """
        at_least = ""
        try:
            self._send_frames()
            self._producer.flush(timeout=FLUSH_TIMEOUT_S)
        except KafkaError as error:
            self._failures.append(f"{type(error).__name__} {error}")
            at_least = "at least "
        if self._failures:
            failures, self._failures = self._failures, []
            raise DeliveryFailed(f"{at_least}{len(failures)} events were not acknowledged, the first: {failures[0]}")

    def close(self) -> None:
        """Flush and disconnect."""
        try:
            self.flush()
        finally:
            with self._framing:
                self._closed = True
                self._framing.notify()
            self._framer.join()
            try:
                self._producer.close(timeout=CLOSE_TIMEOUT_S)
            except KafkaError:  # of what is not acknowledged `flush` has told; kafka-python would go on sending it
                self._producer._sender.force_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

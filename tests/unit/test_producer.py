"""The producer when Kafka does not do its part."""

from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from headwater import producer
from headwater.errors import DeliveryFailed, InvalidEvent
from headwater.producer import EngagementProducer
from headwater.settings import Settings

EVENT = {"event_id": "e", "user_id": "u", "item_id": "i", "occurred_at": 1_700_000_000_000}


class Silent:
    """Has the topic only if it has partitions, and never acknowledges anything."""

    partitions: set[int] | None = None

    def __init__(self, **options: Any) -> None:
        self.callbacks: list[Any] = []
        self._sender = self

    def partitions_for(self, topic: str) -> set[int]:
        if self.partitions is None:
            raise KafkaTimeoutError("Failed to update metadata after 60.0 secs.")
        return self.partitions

    def send(self, topic: str, **record: Any) -> "Silent":
        return self

    def add_errback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def flush(self, timeout: float) -> None:
        if self.callbacks:
            raise KafkaTimeoutError("not in time")

    def close(self, timeout: float) -> None:
        self.flush(timeout)

    def force_close(self) -> None:
        self.forced = True


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> type[Silent]:
    monkeypatch.setattr(producer, "KafkaProducer", Silent)
    return Silent


def test_a_missing_topic_is_a_failed_delivery(kafka: type[Silent]) -> None:
    with EngagementProducer(Settings()) as sending, pytest.raises(DeliveryFailed, match="engagements: KafkaTimeout"):
        sending.send(EVENT)


def test_a_time_out_counts_no_more_than_is_known(kafka: type[Silent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "partitions", {0})
    with EngagementProducer(Settings()) as sending:
        for number in range(3):
            sending.send_item({"item_id": f"i{number}", "topics": [], "published_at": 1_700_000_000_000})
        with pytest.raises(DeliveryFailed, match="at least 1 events were not acknowledged"):
            sending.flush()
        sending._producer.callbacks.clear()


def test_what_cannot_be_sent_is_not_sent_after_closing(kafka: type[Silent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "partitions", {0})
    sending = EngagementProducer(Settings())
    sending.delete_item("i")
    with pytest.raises(DeliveryFailed, match="not in time"):
        sending.close()
    assert sending._producer.forced


@pytest.mark.parametrize("item_id", ["", "a\nb", None, True])
def test_a_tombstone_needs_an_item_id(kafka: type[Silent], item_id: Any) -> None:
    with EngagementProducer(Settings()) as sending, pytest.raises(InvalidEvent, match="item_id: "):
        sending.delete_item(item_id)


def test_a_closed_producer_takes_nothing(kafka: type[Silent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "partitions", {0})
    with EngagementProducer(Settings()) as sending:
        pass
    with pytest.raises(DeliveryFailed, match="this producer is closed"):
        sending.send(EVENT)
    with pytest.raises(DeliveryFailed, match="this producer is closed"):
        sending.delete_item("i")

"""Kafka consumers that commit nothing by themselves, for one look at the log."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from headwater.reachable import kafka_unreachable
from headwater.settings import Settings

POLL_MS = 1000
SILENCE_S = 30.0


@contextmanager
def consuming(settings: Settings, **options: Any) -> Iterator[KafkaConsumer]:
    """Yield a consumer that commits nothing, and close it.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    try:
        consumer = KafkaConsumer(**settings.kafka_options(), enable_auto_commit=False, **options)
    except (KafkaError, ValueError) as error:
        raise kafka_unreachable(settings, error) from None
    try:
        yield consumer
    except KafkaError as error:
        raise kafka_unreachable(settings, error) from None
    finally:
        consumer.close()


def partitions_of(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """Return all partitions of a topic, none where there is no such topic."""
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


def records_until(consumer: KafkaConsumer, ends: Mapping[TopicPartition, int], settings: Settings) -> Iterator[Any]:
    """Yield the records from where the consumer is to the ends, in the order of each partition.

    Raises:
        ServiceUnavailable: nothing came for `SILENCE_S`, before the ends.
    """
    deadline_s = time.monotonic() + SILENCE_S
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for partition, records in consumer.poll(POLL_MS).items():
            yield from (record for record in records if record.offset < ends[partition])
            deadline_s = time.monotonic() + SILENCE_S
        if time.monotonic() > deadline_s:
            topics = ", ".join(sorted({partition.topic for partition in ends}))
            raise kafka_unreachable(
                settings, TimeoutError(f"no record of {topics} for {SILENCE_S:g} s, before the end")
            )

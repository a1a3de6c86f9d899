"""What a server follows: item embeddings and item activity, every partition of both."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from headwater.names import ITEM_ACTIVITY, ITEM_EMBEDDINGS
from headwater.settings import Settings
from streams.app import make_app
from streams.batches import in_batches
from streams.record import Record

Offsets = Mapping[str, Mapping[int, int]]
Callback = Callable[[list[Record]], Awaitable[None]]

log = logging.getLogger(__name__)


def end_offsets(settings: Settings) -> dict[str, dict[int, int]]:
    """Return the next offset of each partition of the followed topics, by topic name without namespace."""
    consumer = KafkaConsumer(**settings.kafka_options())
    try:
        return {name: _ends(consumer, settings.names.topic(name)) for name in (ITEM_EMBEDDINGS, ITEM_ACTIVITY)}
    finally:
        consumer.close()


def _ends(consumer: Any, topic: str) -> dict[int, int]:
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    return {partition.partition: offset for partition, offset in consumer.end_offsets(partitions).items()}


def set_start(settings: Settings, group: str, start: Offsets) -> None:
    """Make the group begin at `start`: its committed offsets are set while nobody is in it."""
    consumer = KafkaConsumer(**settings.kafka_options(), group_id=group, enable_auto_commit=False)
    try:
        committing = {}
        for name, offsets in start.items():
            topic = settings.names.topic(name)
            available = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            first = consumer.beginning_offsets(available)
            for partition in available:
                offset = max(offsets.get(partition.partition, 0), first[partition])
                committing[partition] = OffsetAndMetadata(offset, "", -1)
        consumer.assign(list(committing))
        consumer.commit(committing)
    finally:
        consumer.close()


def make_follower(
    settings: Settings, instance: str, on_embeddings: Callback, on_activity: Callback, extra: Mapping[str, Callback]
) -> faust.App:
    """Return the Faust app a server hosts in its own event loop.

    Args:
        settings: The installation.
        instance: Name of the server; its group has no other member, so it reads all partitions.
        on_embeddings, on_activity: Get batches of records in partition order.
        extra: More topics to consume: name to callback.
    """
    app = make_app(settings, settings.names.serving_group(instance))
    for name, callback in {ITEM_EMBEDDINGS: on_embeddings, ITEM_ACTIVITY: on_activity, **extra}.items():
        _attach(app, settings.names.topic(name), name, callback)
    return app


def _attach(app: faust.App, topic: str, name: str, callback: Callback) -> None:
    async def agent(stream: Any) -> None:
        await in_batches(stream, callback)

    app.agent(app.topic(topic, key_type=bytes, value_type=bytes), name=f"headwater.{name}")(agent)

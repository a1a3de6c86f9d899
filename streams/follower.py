"""The topics that a server follows, every partition of each: item embeddings, item activity and successions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import faust
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from headwater.consumers import consuming, partitions_of
from headwater.names import CANDIDATE_REQUESTS, ITEM_ACTIVITY, ITEM_EMBEDDINGS, ITEM_SUCCESSIONS
from headwater.settings import Settings
from streams.app import make_app
from streams.batches import Apply, attach
from streams.publisher import FaustPublisher, Publisher

FOLLOWED = (ITEM_EMBEDDINGS, ITEM_ACTIVITY, ITEM_SUCCESSIONS)


class Start(NamedTuple):
    """Where to start reading a topic: the earlier of the two, or the beginning where both are None.

    Attributes:
        offsets: Partition to offset; a partition that is left out is read from its beginning.
        since_ms: An append time, epoch ms.
    """

    offsets: Mapping[int, int] | None = None
    since_ms: int | None = None


def end_offsets(settings: Settings) -> dict[str, dict[int, int]]:
    """Return the next offset of each partition of the followed topics, by topic name without namespace.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    with consuming(settings) as consumer:
        topics = {name: partitions_of(consumer, settings.names.topic(name)) for name in FOLLOWED}
        return {name: _numbered(consumer.end_offsets(partitions)) for name, partitions in topics.items()}


def _numbered(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {partition.partition: offset for partition, offset in offsets.items()}


def set_start(settings: Settings, group: str, starts: Mapping[str, Start]) -> dict[str, dict[int, int]]:
    """Make the group begin each topic where `starts` says, by committing its offsets before it has a member.

    Returns:
        Where each topic begins: name to partition to offset, later than `starts` says where the log was cut.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    with consuming(settings, group_id=group) as consumer:
        begins = {name: _begins(consumer, settings.names.topic(name), start) for name, start in starts.items()}
        committing = {
            partition: OffsetAndMetadata(offset, "", -1)
            for of_topic in begins.values()
            for partition, offset in of_topic.items()
        }
        consumer.assign(list(committing))
        consumer.commit(committing)
        return {name: _numbered(of_topic) for name, of_topic in begins.items()}


def _begins(consumer: Any, topic: str, start: Start) -> dict[TopicPartition, int]:
    partitions = partitions_of(consumer, topic)
    first = consumer.beginning_offsets(partitions)
    asked = []
    if start.offsets is not None:
        asked.append({each: start.offsets.get(each.partition, 0) for each in partitions})
    if start.since_ms is not None:
        ends = consumer.end_offsets(partitions)  # read before the offsets by time, so that no record comes in between
        found = consumer.offsets_for_times(dict.fromkeys(partitions, start.since_ms))
        asked.append({each: at.offset if at else ends[each] for each, at in found.items()})
    return {each: max(min((offsets[each] for offsets in asked), default=0), first[each]) for each in partitions}


def latest_ends(app: faust.App, topic: str) -> dict[int, int]:
    """Return the next offset of each partition of a topic the app reads, as of the last fetch."""
    ends = {each.partition: app.consumer.highwater(each) for each in app.consumer.assignment() if each.topic == topic}
    return {partition: end for partition, end in ends.items() if end is not None}


def make_follower(
    settings: Settings, instance: str, on_embeddings: Apply, on_activity: Apply, on_successions: Apply
) -> faust.App:
    """Return the Faust app a server hosts in its own event loop.

    Args:
        settings: The installation.
        instance: Name of the server; its group has no other member, so it reads all partitions.
        on_embeddings, on_activity, on_successions: Get batches of records in partition order.
    """
    app = make_app(settings, settings.names.serving_group(instance))
    attach(app, settings.names.topic(ITEM_EMBEDDINGS), on_embeddings)
    attach(app, settings.names.topic(ITEM_ACTIVITY), on_activity)
    attach(app, settings.names.topic(ITEM_SUCCESSIONS), on_successions)
    return app


def make_responder(settings: Settings, respond: Callable[[Publisher], Apply]) -> faust.App:
    """Return the Faust app that answers `candidate-requests`; all servers share its group.

    Args:
        settings: The installation.
        respond: Given where to publish, returns what answers a batch of requests.
    """
    app = make_app(settings, settings.names.responder_group())
    # One by one: if a request has to wait, those before it are not answered again.
    attach(app, settings.names.topic(CANDIDATE_REQUESTS), respond(FaustPublisher(app, settings.names)), at_once=1)
    return app

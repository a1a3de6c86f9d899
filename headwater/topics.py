"""Kafka topics of an installation: created before anything consumes them."""

import time

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from headwater.consumers import consuming
from headwater.durations import DAY_MS
from headwater.errors import ServiceUnavailable
from headwater.names import COMPACTED_TOPICS, SHORT_RETENTION_TOPICS, TOMBSTONE_RETENTION_S, TOPICS
from headwater.reachable import kafka_unreachable
from headwater.settings import Settings

SHORT_RETENTION_MS = DAY_MS
APPEAR_TIMEOUT_S = 15.0


def ensure_topics(settings: Settings, partitions: int = 4) -> None:
    """Create the topics that are missing; existing ones stay as they are.

    Raises:
        ServiceUnavailable: Kafka does not answer, or refuses.
    """
    try:
        missing = _missing(settings)
        if missing:
            _create(settings, missing, partitions)
        deadline = time.monotonic() + APPEAR_TIMEOUT_S
        while missing and (missing := _missing(settings)):
            if time.monotonic() > deadline:
                raise ServiceUnavailable(f"Kafka topics did not appear: {', '.join(missing)}")
            time.sleep(0.1)
    except (KafkaError, ValueError) as error:
        raise kafka_unreachable(settings, error) from None


def _missing(settings: Settings) -> list[str]:
    with consuming(settings) as consumer:
        present = consumer.topics()
    return [name for name in TOPICS if settings.names.topic(name) not in present]


def _create(settings: Settings, names: list[str], partitions: int) -> None:
    admin = KafkaAdminClient(**settings.kafka_options())
    try:
        for name in names:
            topic = NewTopic(settings.names.topic(name), partitions, -1, topic_configs=_configs(name))
            try:
                admin.create_topics([topic])
            except TopicAlreadyExistsError:
                continue
    finally:
        admin.close()


def _configs(name: str) -> dict[str, str]:
    if name in COMPACTED_TOPICS:
        return {"cleanup.policy": "compact", "delete.retention.ms": str(TOMBSTONE_RETENTION_S * 1000)}
    return {"retention.ms": str(SHORT_RETENTION_MS)} if name in SHORT_RETENTION_TOPICS else {}

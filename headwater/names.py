"""Every lasting name: Kafka topics, Redis keys, files, metrics. Changing one strands stored data."""

from dataclasses import dataclass

ENGAGEMENTS = "engagements"
ITEMS = "items"
ITEM_EMBEDDINGS = "item-embeddings"
ITEM_ACTIVITY = "item-activity"
ITEM_SUCCESSIONS = "item-successions"
CANDIDATE_REQUESTS = "candidate-requests"
CANDIDATES = "candidates"
DELIVERIES = "deliveries"
DEAD_LETTERS = "dead-letters"

TOPICS = (
    ENGAGEMENTS,
    ITEMS,
    ITEM_EMBEDDINGS,
    ITEM_ACTIVITY,
    ITEM_SUCCESSIONS,
    CANDIDATE_REQUESTS,
    CANDIDATES,
    DELIVERIES,
    DEAD_LETTERS,
)
SHORT_RETENTION_TOPICS = (ITEM_SUCCESSIONS,)
COMPACTED_TOPICS = (ITEMS, ITEM_EMBEDDINGS)
TOMBSTONE_RETENTION_S = 7 * 24 * 3600
"""How long tombstones stay in compacted topics."""

MANIFEST_FILE = "manifest.json"
VOCABULARY_FILE = "vocabulary.json"
GOLDEN_FILE = "golden.npz"
USER_TOWER_FILE = "user_tower.onnx"
ITEM_TOWER_FILE = "item_tower.onnx"

HEADER_CE_PREFIX = "ce_"
HEADER_ERROR = "dead_letter_error"
HEADER_REASON = "dead_letter_reason"
HEADER_TOPIC = "dead_letter_topic"
HEADER_PARTITION = "dead_letter_partition"
HEADER_OFFSET = "dead_letter_offset"
HEADER_PLACE = "dead_letter_place"
HEADER_FRAME = "headwater_frame"
HEADER_REPLAYED = "headwater_replayed_from"

DEFAULT_KEY_PREFIX = "headwater"
"""Prefix of Redis keys where no namespace is set."""


@dataclass(frozen=True, slots=True)
class Names:
    """Kafka topic names and Redis keys of one namespace; an empty namespace adds no prefix."""

    namespace: str = ""

    def topic(self, name: str) -> str:
        """Return the Kafka topic that carries `name` (one of `TOPICS`)."""
        return f"{self.namespace}.{name}" if self.namespace else name

    def _key(self, *parts: str) -> str:
        return ":".join((self.namespace or DEFAULT_KEY_PREFIX, *parts))

    def user(self, user_id: str) -> str:
        return self._key("user", user_id)

    def delivered(self, user_id: str) -> str:
        return self._key("delivered", user_id)

    def item(self, item_id: str) -> str:
        return self._key("item", item_id)

    def catalogue(self) -> str:
        """Sorted set: item_id scored by its last write in epoch ms."""
        return self._key("catalogue")

    def activity(self, partition: int, item_id: str) -> str:
        return self._key("activity", str(partition), item_id)

    def active_items(self, partition: int) -> str:
        """Sorted set: item_id scored by its last engagement in epoch ms."""
        return self._key("active-items", str(partition))

    def activity_partitions(self) -> str:
        return self._key("activity-partitions")

    def claim(self, topic: str, partition: int) -> str:
        """The fencing token of the worker that claimed a partition of a Kafka topic last."""
        return self._key("claim", topic, str(partition))

    def generations(self) -> str:
        return self._key("generations")

    def alias(self) -> str:
        return self._key("alias")

    def stream_group(self) -> str:
        """Kafka consumer group of the stream workers."""
        return self.topic("headwater-streams")

    def serving_group(self, instance: str) -> str:
        """Kafka consumer group of one server; each follows everything."""
        return self.topic(f"headwater-serving-{instance}")

    def responder_group(self) -> str:
        """Kafka consumer group in which servers share candidate requests."""
        return self.topic("headwater-responders")


METRIC_QUERIES = "headwater_queries"
METRIC_QUERY_SECONDS = "headwater_query_seconds"
METRIC_REFUSED = "headwater_refused"
METRIC_INDEX_ITEMS = "headwater_index_items"
METRIC_FRESHNESS_SECONDS = "headwater_item_freshness_seconds"
METRIC_LAG = "headwater_follower_lag_records"
METRIC_WATERMARK = "headwater_watermark_seconds"
METRIC_COLLECTED = "headwater_collected"

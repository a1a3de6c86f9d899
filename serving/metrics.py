"""Prometheus metrics of one server."""

from collections import deque

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headwater import names

LATENCY_BUCKETS_S = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
FRESHNESS_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0, 60.0)
RECENT_QUERIES = 1000


class Metrics:
    """All metrics, in a Prometheus registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        queries = Counter(
            names.METRIC_QUERIES, "Users asked for, answered or failed", ["outcome"], registry=self.registry
        )
        self.answered, self.failed = queries.labels("answered"), queries.labels("failed")
        self.query_seconds = Histogram(
            names.METRIC_QUERY_SECONDS, "Time of one HTTP query", buckets=LATENCY_BUCKETS_S, registry=self.registry
        )
        self.recent_seconds: deque[float] = deque(maxlen=RECENT_QUERIES)
        self.refused = Counter(names.METRIC_REFUSED, "Queries refused because of overload", registry=self.registry)
        self.items = Gauge(names.METRIC_INDEX_ITEMS, "Items in the index", ["version"], registry=self.registry)
        self.freshness_seconds = Histogram(
            names.METRIC_FRESHNESS_SECONDS,
            "From an item embedding's append to Kafka to retrievable",
            buckets=FRESHNESS_BUCKETS_S,
            registry=self.registry,
        )
        self.lag = Gauge(names.METRIC_LAG, "Records of item embeddings not applied yet", registry=self.registry)
        self.watermark = Gauge(names.METRIC_WATERMARK, "Event time of the newest engagement", registry=self.registry)
        self.collected = Counter(
            names.METRIC_COLLECTED, "Events taken over HTTP into Kafka", ["topic"], registry=self.registry
        )

    def observe_query(self, seconds: float) -> None:
        """Note how long one HTTP query took."""
        self.query_seconds.observe(seconds)
        self.recent_seconds.append(seconds)

    def answered_queries(self) -> float:
        """Return the number of users answered."""
        return self.registry.get_sample_value(f"{names.METRIC_QUERIES}_total", {"outcome": "answered"}) or 0.0

    def refused_queries(self) -> float:
        """Return the number of queries refused because of overload."""
        return self.registry.get_sample_value(f"{names.METRIC_REFUSED}_total") or 0.0

    def recent_latency_ms(self, share: float) -> float | None:
        """Return the latency that a `share` of the recent queries stayed below, None before the first."""
        if not self.recent_seconds:
            return None
        ordered = sorted(self.recent_seconds)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)

"""A small catalogue, and systems that answer from it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headwater.events import UserCandidates
from headwater.producer import EngagementProducer
from headwater.settings import Settings
from headwater.topics import ensure_topics
from tests.bundles import make_bundle
from tests.services import KafkaService, RedisService
from tests.system import Process, Server, headwater, settings_of, with_server_port

NOW_MS = 1_700_000_000_000
TOPICS = ["news", "sport", "a/b é"]
ITEMS = 60


def installed(kafka: KafkaService, redis: RedisService, directory: Path, **changes: object) -> Settings:
    """Return settings of a new installation whose model repository has bundles v1 and v2."""
    own = {"namespace": f"t{uuid.uuid4().hex[:12]}", "clock": "watermark", "snapshot_every_s": 1.0, **changes}
    settings = with_server_port(settings_of(kafka, redis, directory, **own))
    ensure_topics(settings)
    make_bundle(settings.model_dir, "v1", TOPICS)
    make_bundle(settings.model_dir, "v2", TOPICS, seed=1)
    return settings


@contextmanager
def answering(settings: Settings) -> Iterator[Server]:
    """A stream worker and a server with the catalogue, v1 live."""
    with Process(settings, "stream"), Server(settings) as server:
        publish(settings)
        assert headwater(settings, "index", "build", "v1").returncode == 0
        promoted = headwater(settings, "index", "promote", "v1")
        assert promoted.returncode == 0, promoted.stderr
        server.wait_ready()
        yield server


def publish(settings: Settings) -> None:
    """Send the catalogue: `ITEMS` items, a topic each in turn."""
    with EngagementProducer(settings) as producer:
        for number in range(ITEMS):
            topic = TOPICS[number % len(TOPICS)]
            producer.send_item({"item_id": f"i{number}", "topics": [topic], "published_at": NOW_MS - number * 1000})


def engage(settings: Settings, user: str, items: list[int]) -> None:
    """Send a user's engagements with items of the catalogue."""
    with EngagementProducer(settings) as producer:
        for number in items:
            producer.send(
                {
                    "event_id": f"{user}-{number}",
                    "user_id": user,
                    "item_id": f"i{number}",
                    "occurred_at": NOW_MS + number,
                }
            )


def ids(answer: UserCandidates) -> set[str]:
    """Return the items of an answer."""
    return {candidate.item_id for candidate in answer.candidates}

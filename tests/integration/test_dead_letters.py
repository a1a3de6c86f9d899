"""Dead letters through real Kafka: of every size, with their headers, and where there is no topic for them."""

import json

from kafka import KafkaProducer

from headwater.dead_letter import KEPT_BYTES
from headwater.dead_letters_cli import read_dead_letters
from headwater.events import Item, now_ms
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.settings import Settings
from headwater.topics import ensure_topics
from tests.integration.test_stream import counters, publish_items, wait_for_items, worker
from tests.services import poll
from tests.system import headwater, stats_file

CLOUD_EVENT = [("ce_id", b"42"), ("ce_source", b"/app"), ("ce_time", b"2026-01-01T00:00:00Z")]


def test_there_are_none_without_a_topic(settings: Settings) -> None:
    listed = headwater(settings, "dead-letters", "list")
    assert (listed.returncode, listed.stdout) == (0, "no dead letters\n"), listed.stderr
    replayed = headwater(settings, "dead-letters", "replay", "--json")
    assert json.loads(replayed.stdout) == {"replayed": {}, "outdated": 0, "dry_run": False}


def test_large_records_become_dead_letters_and_cloud_events_are_replayed(settings: Settings) -> None:
    ensure_topics(settings)
    topic = settings.names.topic(ENGAGEMENTS)
    with worker(settings):
        producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
        producer.send(topic, key=b"u", value=b"x" * 1_000_000)
        producer.send(topic, key=b"u", value=b'{"user_id": "u", "item_id": "i1"}', headers=CLOUD_EVENT)
        producer.close()
        poll(lambda: counters(stats_file(settings)).get("dead_letters") == 2, 60, "both are dead letters")
        large, event = sorted(read_dead_letters(settings), key=lambda letter: letter.reason)
        assert (large.reason, len(large.value or b"")) == ("too-large", KEPT_BYTES)
        assert (event.reason, event.original) == ("unknown-item", tuple(CLOUD_EVENT))
        publish_items(settings)
        wait_for_items(settings)
        assert headwater(settings, "dead-letters", "replay", "--reason", "unknown-item").returncode == 0
        poll(lambda: counters(stats_file(settings)).get("applied") == 1, 60, "the event is applied")
        # What is unusable for good is sent once each time, not once for each time that it was.
        for failures in (3, 4):
            replayed = headwater(settings, "dead-letters", "replay", "--json")
            assert json.loads(replayed.stdout) == {"replayed": {topic: 2}, "outdated": 0, "dry_run": False}
            poll(lambda: counters(stats_file(settings)).get("dead_letters") == failures, 60, "it failed again")  # noqa: B023
        assert counters(stats_file(settings))["applied"] == 1


def test_an_item_that_was_sent_again_or_deleted_since_is_not_replayed(settings: Settings) -> None:
    ensure_topics(settings)
    topic = settings.names.topic(ITEMS)
    with worker(settings):
        producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
        for item_id in (b"corrected", b"deleted", b"refused"):
            producer.send(topic, key=item_id, value=b'{"item_id": "%b", "topics": 1}' % item_id)
        item = Item(item_id="corrected", topics=("news",), published_at=now_ms())
        producer.send(topic, key=b"corrected", value=item.to_wire())
        producer.send(topic, key=b"deleted", value=None)
        producer.close()
        poll(lambda: len(list(read_dead_letters(settings))) == 3, 60, "three dead letters")
        for _ in range(2):
            replayed = headwater(settings, "dead-letters", "replay", "--json")
            assert json.loads(replayed.stdout) == {"replayed": {topic: 1}, "outdated": 2, "dry_run": False}
            poll(lambda: len(list(read_dead_letters(settings))) > 3, 60, "it is refused again")

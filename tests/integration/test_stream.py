"""The stream worker on real Kafka and Redis: every record is accounted for, once."""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import CoordinatorNotAvailableError
from redis import Redis

from headwater.activity import ItemActivity
from headwater.dead_letters_cli import read_dead_letters
from headwater.events import Engagement
from headwater.fold import Outcome
from headwater.names import ENGAGEMENTS, ITEM_SUCCESSIONS, ITEMS
from headwater.producer import EngagementProducer
from headwater.settings import Settings
from headwater.stores import RedisFeatureStore
from headwater.successions import decode_successions
from headwater.topics import ensure_topics
from headwater.users import Placed, Users
from tests.folding import counted
from tests.services import poll
from tests.system import Process, headwater, records_of, stats_file
from tests.unit.test_intake import BAD_ENGAGEMENTS, BAD_ITEMS
from training.corpus import Corpus
from training.log import LogReader

START_MS = 1_700_000_000_000
USERS, ITEM_COUNT = 300, 50


def worker(settings: Settings, name: str = "stream") -> Process:
    return Process(settings, "stream", "--stats-file", str(stats_file(settings, name)))


def counters(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def publish_items(settings: Settings) -> None:
    with EngagementProducer(settings) as producer:
        for number in range(ITEM_COUNT):
            producer.send_item({"item_id": f"i{number}", "topics": [f"t{number % 7}", "all"], "published_at": START_MS})


def engagements(count: int, seed: int = 0, first: int = 0) -> list[Engagement]:
    chance = random.Random(seed)
    return [
        Engagement(
            event_id=f"e{first + number}",
            user_id=f"u{chance.randrange(USERS)}",
            item_id=f"i{chance.randrange(ITEM_COUNT)}",
            occurred_at=START_MS + number * 50 - chance.randrange(5000),
        )
        for number in range(count)
    ]


def send(settings: Settings, events: list[Engagement]) -> None:
    with EngagementProducer(settings) as producer:
        for event in events:
            producer.send(event)


def wait_for_items(settings: Settings, name: str = "stream") -> None:
    poll(lambda: counters(stats_file(settings, name)).get("items", 0) >= ITEM_COUNT, 60, "all items are taken in")


def offline(settings: Settings) -> tuple[Users, dict[tuple[int, str], ItemActivity], Counter[Outcome]]:
    """Fold the log offline, as the trainer reads it."""
    users = Users()
    activities: dict[tuple[int, str], ItemActivity] = {}
    outcomes: Counter[Outcome] = Counter()
    corpus, reader = Corpus(), LogReader(settings)
    reader.read_items(corpus)
    for logged in reader.read_engagements():
        event, number = logged.engagement, corpus.item_index.get(logged.engagement.item_id)
        if number is None:
            continue
        topics = corpus.items[number - 1].topics
        outcome = Outcome(users.fold([Placed(event, topics, logged.partition, logged.offset)]).outcomes[0])
        outcomes[outcome] += 1
        if outcome is Outcome.APPLIED:
            key = (logged.partition, event.item_id)
            activities[key] = counted(activities.get(key, ItemActivity()), (event.occurred_at, logged.offset))
    return users, activities, outcomes


async def stored(settings: Settings, users: list[str], keys: list[tuple[int, str]]) -> tuple[list[Any], list[Any]]:
    store = RedisFeatureStore.of(settings)
    try:
        return await store.users(users), await store.activities(keys)
    finally:
        await store.close()


def assert_store_is_the_offline_fold(settings: Settings) -> Counter[Outcome]:
    users, activities, outcomes = offline(settings)
    found_users, found_activities = asyncio.run(stored(settings, list(users.rows), list(activities)))
    assert found_users == [users.record(user_id) for user_id in users.rows]
    assert found_activities == list(activities.values())
    return outcomes


def uncommitted(settings: Settings) -> int:
    """Return how many records a restarted worker would be given again."""
    options = {"enable_auto_commit": False, "group_id": settings.names.stream_group()}
    consumer = KafkaConsumer(**settings.kafka_options(), **options)
    try:
        topic = settings.names.topic(ENGAGEMENTS)
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        ends = consumer.end_offsets(partitions)
        return sum(end - (consumer.committed(partition) or 0) for partition, end in ends.items())
    finally:
        consumer.close()


def test_every_engagement_is_applied_a_duplicate_or_a_dead_letter(settings: Settings) -> None:
    ensure_topics(settings)
    publish_items(settings)
    with worker(settings) as stream:
        wait_for_items(settings)
        good = engagements(3000)
        send(settings, good + good[:400] + engagements(20, seed=1, first=10_000))
        unknown = [
            event.model_copy(update={"item_id": "nowhere", "event_id": f"x{n}"}) for n, event in enumerate(good[:30])
        ]
        send(settings, unknown)
        total = 3000 + 400 + 20 + 30

        def accounted() -> bool:
            seen = counters(stats_file(settings))
            return bool(sum(seen.get(name, 0) for name in ("applied", "duplicates", "dead_letters")) >= total)

        poll(accounted, 60, "all engagements are accounted for")
        seen = counters(stats_file(settings))
        assert stream.end() == 0
    assert uncommitted(settings) == 0
    assert seen["dead_letters"] == 30
    assert seen["rejected"] == {"unknown-item": 30}
    assert seen["applied"] + seen["duplicates"] + seen["dead_letters"] == total
    outcomes = assert_store_is_the_offline_fold(settings)
    assert outcomes[Outcome.APPLIED] == seen["applied"]


def read_again(settings: Settings, name: str) -> None:
    """Have the workers begin a topic from its beginning; none of them may run."""
    topic = settings.names.topic(name)
    consumer, admin = KafkaConsumer(**settings.kafka_options()), KafkaAdminClient(**settings.kafka_options())
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    reset = admin.reset_group_offsets(settings.names.stream_group(), dict.fromkeys(partitions, OffsetSpec.EARLIEST))
    consumer.close()
    admin.close()
    assert len(reset) == len(partitions)


def test_what_redis_has_lost_is_folded_again_from_the_log(settings: Settings) -> None:
    ensure_topics(settings)
    publish_items(settings)
    with worker(settings) as stream:
        wait_for_items(settings)
        send(settings, engagements(2000) + engagements(300))
        poll(lambda: counters(stats_file(settings)).get("duplicates", 0) >= 300, 60, "all are folded")
        assert stream.end() == 0
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        redis.delete(*redis.scan_iter(f"{settings.namespace}*"))
    read_again(settings, ITEMS)
    with worker(settings, "items") as stream:
        wait_for_items(settings, "items")
        assert stream.end() == 0
    read_again(settings, ENGAGEMENTS)
    with worker(settings, "engagements") as stream:
        poll(
            lambda: counters(stats_file(settings, "engagements")).get("duplicates", 0) >= 300,
            60,
            "all are folded again",
        )
        assert stream.end() == 0
    assert assert_store_is_the_offline_fold(settings)[Outcome.APPLIED] == 2000


def test_malformed_records_become_dead_letters_and_the_stream_goes_on(settings: Settings) -> None:
    ensure_topics(settings)
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, max_request_size=2_000_000)
    with worker(settings):
        sent = {}
        for topic, cases in ((ENGAGEMENTS, BAD_ENGAGEMENTS), (ITEMS, BAD_ITEMS)):
            for key, value, reason in cases.values():
                if key is None and value is None:
                    continue  # no client sends such a record
                if reason == "from-the-future":
                    value = (value or b"").replace(b"1801000000000", b"9999999999999")
                metadata = producer.send(settings.names.topic(topic), key=key, value=value).get(10)
                sent[(metadata.topic, metadata.partition, metadata.offset)] = (key, value, reason)
        publish_items(settings)
        wait_for_items(settings)
        send(settings, engagements(100))
        poll(lambda: counters(stats_file(settings)).get("applied") == 100, 60, "the stream goes on")
    producer.close()
    letters = {(letter.topic, letter.partition, letter.offset): letter for letter in read_dead_letters(settings)}
    assert {place: (letter.key, letter.value, letter.reason) for place, letter in letters.items()} == sent
    assert all(letter.error for letter in letters.values())
    listed = headwater(settings, "dead-letters", "list", "--json")
    assert sum(json.loads(listed.stdout)["counts"].values()) == len(sent)


def test_dead_letters_can_be_replayed_once_the_item_is_known(settings: Settings) -> None:
    ensure_topics(settings)
    with worker(settings):
        send(settings, engagements(50))
        poll(lambda: counters(stats_file(settings)).get("dead_letters") == 50, 60, "all are dead letters")
        publish_items(settings)
        wait_for_items(settings)
        dry = headwater(settings, "dead-letters", "replay", "--dry-run")
        assert "would replay 50" in dry.stdout
        assert headwater(settings, "dead-letters", "replay", "--reason", "unknown-item").returncode == 0
        poll(lambda: counters(stats_file(settings)).get("applied") == 50, 60, "all are applied")


def members(settings: Settings) -> int:
    """Return how many workers share the partitions, 0 while they are being shared out."""
    group = settings.names.stream_group()
    admin = KafkaAdminClient(**settings.kafka_options())
    try:
        described = admin.describe_groups([group])[group]
    except CoordinatorNotAvailableError:  # of a Kafka that has just begun
        return 0
    finally:
        admin.close()
    return len(described["members"]) if described["group_state"] == "Stable" else 0


def test_killing_one_of_two_workers_loses_and_repeats_nothing(settings: Settings) -> None:
    ensure_topics(settings)
    publish_items(settings)
    with worker(settings, "first") as first, worker(settings, "second"):
        poll(lambda: members(settings) == 2, 60, "both are in the group")
        poll(
            lambda: (
                sum(counters(stats_file(settings, name)).get("items", 0) for name in ("first", "second")) >= ITEM_COUNT
            ),
            60,
            "all items are taken in",
        )
        send(settings, engagements(6000))
        poll(lambda: counters(stats_file(settings, "first")).get("applied", 0) > 100, 60, "the first is at work")
        first.kill()
        send(settings, engagements(1000, seed=2, first=6000))
        expected = len(offline(settings)[0])

        def complete() -> bool:
            users, _, _ = offline(settings)
            found, _ = asyncio.run(stored(settings, list(users.rows), []))
            folded = [users.record(user_id) for user_id in users.rows]
            return found == folded and len(users) == expected

        poll(complete, 60, "the second worker took over")
    outcomes = assert_store_is_the_offline_fold(settings)
    assert outcomes[Outcome.APPLIED] == 7000
    told = [
        (record.key, each.offset)
        for record in records_of(settings, ITEM_SUCCESSIONS)
        for each in decode_successions(record.value)
    ]
    assert len(set(told)) == 7000

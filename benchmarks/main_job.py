"""The main job on real input, real Kafka and real Redis: `python -m benchmarks.main_job`.

Replays news clicks while queries run, refreshes the model in between, then checks that every event is accounted for, that
Redis holds the offline fold bit for bit, and runs a notification job. Needs `make setup-services` and the news data.
"""

import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from redis.asyncio import Redis

from headwater.client import HeadwaterClient
from headwater.datafiles import EngagementTable, read_engagements, read_items
from headwater.dead_letters_cli import read_dead_letters
from headwater.errors import UsageError
from headwater.events import Item
from headwater.frames import position
from headwater.producer import EngagementProducer
from headwater.query_load import QueryLoad
from headwater.replay import LEAD_MS, in_event_time, known_by, replay_events, wait_until_items_are_taken_in
from headwater.settings import Settings
from headwater.stores import RedisFeatureStore
from headwater.topics import ensure_topics
from headwater.user_record import Outcome, UserRecord
from tests.services import KafkaService, RedisService, poll
from tests.system import Process, Server, headwater, stats_file, with_server_port
from training.corpus import Corpus
from training.log import LogReader

NEWS = Path("../shared/data/globo")
RESULTS = Path(__file__).parent / "results" / "main_job.json"
BEGIN_MS = 1_507_507_200_000
REFRESHES = 4
COMPARED_USERS = 1_000
NOTIFIED_USERS = 10_000
NEW_ITEMS = 100


@click.command()
@click.option("--events", default=300_000, show_default=True, type=click.IntRange(min=1000))
def main(events: int) -> None:
    """Run the main job and write benchmarks/results/main_job.json."""
    if not NEWS.is_dir():
        raise UsageError(f"{NEWS} is absent: the main job replays the news clicks")
    table = read_engagements(NEWS / "engagements.parquet")
    items = known_by(read_items(NEWS / "items.parquet"), table)
    with KafkaService() as kafka, RedisService() as redis, tempfile.TemporaryDirectory() as directory:
        settings = with_server_port(
            Settings.model_validate(
                {
                    "kafka_bootstrap_servers": kafka.bootstrap_servers,
                    "redis_url": redis.url,
                    "model_dir": Path(directory) / "onnx",
                    "state_dir": Path(directory) / "var",
                    "clock": "watermark",
                }
            )
        )
        ensure_topics(settings)
        stream = Process(settings, "stream", "--stats-file", str(stats_file(settings)))
        with stream, Server(settings) as server:
            figures = run(settings, server, table, items, events)
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(figures, indent=2))


def run(settings: Settings, server: Server, table: EngagementTable, items: list[Item], events: int) -> dict[str, Any]:
    """Return the figures of one run."""
    first = int((table.occurred_ms < BEGIN_MS).sum())
    cuts = [first + events * part // REFRESHES for part in range(REFRESHES + 1)]
    times = [int(table.occurred_ms[min(cut, len(table) - 1)]) for cut in cuts]
    figures: dict[str, Any] = {"engagements": 0, "items": 0, "refreshes": []}
    with ExitStack() as running:
        load: QueryLoad | None = None
        for begin_ms, end_ms in pairwise(times):
            fresh = [item for item in items if (begin_ms if load else 0) <= item.published_at < end_ms]
            _stream_in(settings, table, fresh, begin_ms, end_ms, figures)
            figures["refreshes"].append(_refresh(settings))
            if load is None:
                server.wait_ready()
                users = list(dict.fromkeys(table.user_ids[first : first + 5000].tolist()))[:500]
                load = running.enter_context(QueryLoad(settings.serving_url, users, _topics(server)))
        assert load is not None
        load.wait_for(figures["refreshes"][-1]["version"])
        figures["new_items_ms"] = _new_items(settings, times[-1], load)
    known = {refresh["version"] for refresh in figures["refreshes"]}
    figures["queries"] = {
        "answered": sum(load.versions.values()),
        "failed": load.failed,
        "of_mixed_versions": load.mixed,
        "versions": dict(load.versions),
        "of_unknown_version": sum(count for version, count in load.versions.items() if version not in known),
        "p50_ms": round(statistics.median(load.latencies_ms), 2),
        "p99_ms": round(statistics.quantiles(load.latencies_ms, n=100)[98], 2),
    }
    figures |= _accounts(settings, figures["engagements"])
    figures["notification"] = _notification(settings, _topics(server)[0], table.user_ids[first : cuts[-1]].tolist())
    return figures


def _refresh(settings: Settings) -> dict[str, Any]:
    trained = headwater(settings, "train", "--once", "--json", timeout_s=900)
    if trained.returncode != 0:
        raise UsageError(f"the trainer failed: {trained.stderr}")
    record = json.loads(trained.stdout)
    click.echo(f"refresh {record['version']}: promoted {record['promoted']}, {record['seconds']}", err=True)
    return {name: record[name] for name in ("version", "promoted", "reasons", "examples", "seconds", "metrics")}


def _stream_in(
    settings: Settings, table: EngagementTable, fresh: list[Item], begin_ms: int, end_ms: int, figures: dict[str, Any]
) -> None:
    started = time.monotonic()
    with EngagementProducer(settings) as producer:
        events = in_event_time(fresh, table.events(begin_ms, end_ms), LEAD_MS)
        *_, sent = replay_events(producer, events, None, lambda: wait_until_items_are_taken_in(settings))
    figures["engagements"] += sent.engagements
    figures["items"] += sent.items
    poll(lambda: sum(_counters(settings).values()) >= figures["engagements"], 600, "everything is accounted for")
    rate = sent.engagements / (time.monotonic() - started)
    figures.setdefault("engagements_per_s", []).append(round(rate))
    click.echo(f"{figures['engagements']} engagements so far, {rate:.0f}/s, {_counters(settings)}", err=True)


def _counters(settings: Settings) -> dict[str, int]:
    try:
        report = json.loads(stats_file(settings).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {name: report[name] for name in ("applied", "duplicates", "dead_letters")}


def _topics(server: Server) -> list[str]:
    return [each["topic"] for each in server.get("/v1/topics").json()["topics"][:20]]


def _new_items(settings: Settings, now_ms: int, load: QueryLoad) -> dict[str, float]:
    """Publish items one after the other while queries run; return how long each takes to be retrievable."""
    waits_ms = []
    with HeadwaterClient(settings.serving_url) as client, EngagementProducer(settings) as producer:
        for number in range(NEW_ITEMS):
            item_id = f"new-{number}"
            producer.send_item({"item_id": item_id, "topics": ["brand-new"], "published_at": now_ms})
            producer.flush()
            started = time.perf_counter()
            while not _retrievable(client, item_id):
                if time.perf_counter() - started > 30:
                    raise RuntimeError(f"{item_id} did not become retrievable")
            waits_ms.append((time.perf_counter() - started) * 1000)
    assert not load.failed
    quantiles = statistics.quantiles(waits_ms, n=100)
    return {"p50": round(quantiles[49], 1), "p99": round(quantiles[98], 1), "max": round(max(waits_ms), 1)}


def _retrievable(client: HeadwaterClient, item_id: str) -> bool:
    try:
        answer = client.candidates("somebody", "brand-new", k=1000)
    except Exception as error:
        if "no live item carries" in str(error):
            return False
        raise
    return item_id in {candidate.item_id for candidate in answer.candidates}


def _accounts(settings: Settings, sent: int) -> dict[str, Any]:
    """Compare Redis with the offline fold of the log, bit for bit."""
    users: dict[str, UserRecord] = {}
    outcomes: Counter[str] = Counter()
    corpus, reader = Corpus(), LogReader(settings)
    reader.read_items(corpus)
    letters = _dead_letters(settings)
    for logged in reader.read_engagements():
        event = logged.engagement
        if (logged.partition, logged.offset) in letters:
            outcomes["dead_letters"] += 1
            continue
        topics = corpus.items[corpus.item_index[event.item_id] - 1].topics
        user, outcome = users.get(event.user_id, UserRecord()).apply(event, topics, logged.partition, logged.offset)
        users[event.user_id] = user
        outcomes["applied" if outcome is Outcome.APPLIED else "duplicates"] += 1
    counters = _counters(settings)
    chosen = random.Random(0).sample(sorted(users), min(COMPARED_USERS, len(users)))
    found = asyncio.run(_stored(settings, chosen))
    equal = sum(record == users[user_id] for user_id, record in zip(chosen, found, strict=True))
    return {
        "stream": counters,
        "offline": dict(outcomes),
        "unaccounted": sent - sum(counters.values()),
        "users_compared": len(chosen),
        "users_equal_bit_for_bit": equal,
    }


def _dead_letters(settings: Settings) -> set[tuple[int, int]]:
    return {(letter.partition, position(letter.offset, letter.place)) for letter in read_dead_letters(settings)}


async def _stored(settings: Settings, user_ids: list[str]) -> list[UserRecord | None]:
    redis = Redis.from_url(settings.redis_url.get_secret_value())
    store = RedisFeatureStore(redis, settings.names, settings.user_ttl_s, settings.item_ttl_s)
    try:
        return await store.users(user_ids)
    finally:
        await store.close()


def _notification(settings: Settings, topic: str, user_ids: list[str]) -> dict[str, Any]:
    users = list(dict.fromkeys(user_ids))[:NOTIFIED_USERS]
    path = settings.state_dir / "users.csv"
    path.write_text("user_id\n" + "\n".join(users) + "\n", encoding="utf-8")
    output = settings.state_dir / "candidates.jsonl"
    done = headwater(
        settings, "notify", "--topic", topic, "--users", str(path), "--k", "20", "--output", str(output), "--json"
    )
    summary = json.loads(done.stdout)
    return {"users": len(users), "seconds": summary["seconds"], "lists_per_s": round(len(users) / summary["seconds"])}


if __name__ == "__main__":
    main()

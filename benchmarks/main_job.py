"""The main job on real input, real Kafka and real Redis: `python -m benchmarks.main_job`.

Replays news clicks while queries run, refreshes the model in between, then checks that every event is accounted for, that
Redis holds the offline fold bit for bit, and runs a notification job. Needs `make setup-services` and the news data.
"""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import Installation, News, installed, machine, news
from headwater.client import HeadwaterClient
from headwater.dead_letters_cli import read_dead_letters
from headwater.fold import Outcome
from headwater.frames import position
from headwater.producer import EngagementProducer
from headwater.query_load import QueryLoad
from headwater.settings import Settings
from headwater.stores import RedisFeatureStore
from headwater.user_record import UserRecord
from headwater.users import Placed, Users
from tests.system import headwater
from training.corpus import Corpus
from training.log import LogReader

RESULTS = Path(__file__).parent / "results" / "main_job.json"
REFRESHES = 4
COMPARED_USERS = 1_000
QUERYING_USERS = 500
NOTIFIED_USERS = 10_000
NEW_ITEMS = 100


@click.command()
@click.option("--events", default=300_000, show_default=True, type=click.IntRange(min=1000))
def main(events: int) -> None:
    """Run the main job and write benchmarks/results/main_job.json."""
    data = news()
    with installed() as installation:
        figures = run(installation, data, events)
    figures["machine"] = machine()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(figures, indent=2))
    if wrong := _wrong(figures):
        raise SystemExit("; ".join(wrong))


def run(installation: Installation, data: News, events: int) -> dict[str, Any]:
    """Return the figures of one run."""
    settings, server = installation.settings, installation.server
    times = [data.until(events * part // REFRESHES) for part in range(REFRESHES + 1)]
    figures: dict[str, Any] = {"engagements": 0, "items": 0, "refreshes": []}
    with ExitStack() as running:
        load: QueryLoad | None = None
        for begin_ms, end_ms in pairwise(times):
            _stream_in(installation, data, begin_ms, end_ms, begin_ms if load else 0, figures)
            figures["refreshes"].append(_refresh(installation))
            if load is None:
                server.wait_ready()
                topics = installation.topics()
                load = running.enter_context(QueryLoad(settings.serving_url, data.users(QUERYING_USERS), topics))
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
    figures |= _accounts(installation, figures["engagements"])
    figures["notification"] = _notification(settings, installation.topics()[0], data.users(NOTIFIED_USERS))
    return figures


def _wrong(figures: dict[str, Any]) -> list[str]:
    """Return what must not be."""
    queries, stream, offline = figures["queries"], figures["stream"], figures["offline"]
    wrong = [
        f"{queries[name]} queries {name}"
        for name in ("failed", "of_mixed_versions", "of_unknown_version")
        if queries[name]
    ]
    if figures["unaccounted"]:
        wrong.append(f"{figures['unaccounted']} engagements unaccounted for")
    if {**stream, **offline} != stream:
        wrong.append(f"the stream counted {stream}, the offline fold {offline}")
    if figures["users_equal_bit_for_bit"] != figures["users_compared"]:
        wrong.append(
            f"{figures['users_equal_bit_for_bit']} of {figures['users_compared']} users equal the offline fold"
        )
    return wrong


def _refresh(installation: Installation) -> dict[str, Any]:
    record = installation.train()
    click.echo(f"refresh {record['version']}: promoted {record['promoted']}, {record['seconds']}", err=True)
    return {name: record[name] for name in ("version", "promoted", "reasons", "examples", "seconds", "metrics")}


def _stream_in(
    installation: Installation, data: News, begin_ms: int, end_ms: int, known_ms: int, figures: dict[str, Any]
) -> None:
    sent, seconds = installation.stream_in(data, end_ms, begin_ms, known_ms)
    figures["engagements"] += sent.engagements
    figures["items"] += sent.items
    rate = sent.engagements / seconds
    figures.setdefault("engagements_per_s", []).append(round(rate))
    click.echo(f"{figures['engagements']} engagements so far, {rate:.0f}/s, {installation.counters()}", err=True)


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


def _accounts(installation: Installation, sent: int) -> dict[str, Any]:
    """Compare Redis with the offline fold of the log, bit for bit."""
    settings = installation.settings
    users, log = Users(), list[Placed]()
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
        log.append(Placed(event, topics, logged.partition, logged.offset))
    folded = (users.fold([placed]).outcomes[0] for placed in log)  # one after the other, as a user's events come
    outcomes.update("applied" if outcome == Outcome.APPLIED else "duplicates" for outcome in folded)
    counters = installation.counters()
    chosen = random.Random(0).sample(sorted(users.rows), min(COMPARED_USERS, len(users)))
    found = asyncio.run(_stored(settings, chosen))
    equal = sum(record == users.record(user_id) for user_id, record in zip(chosen, found, strict=True))
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
    store = RedisFeatureStore.of(settings)
    try:
        return await store.users(user_ids)
    finally:
        await store.close()


def _notification(settings: Settings, topic: str, users: list[str]) -> dict[str, Any]:
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

"""Single queries over HTTP and notification jobs: `python -m benchmarks.queries`.

A server with 100,000 news clicks behind it and a core of its own, Kafka, Redis and whoever asks on the other, answers
as fast as it can, then at half of that and at half of the goal while new articles come in. The floor is what Redis, the
user tower and the search take by themselves, one query at a time in one process.
"""

import asyncio
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import click
import numpy as np

from benchmarks.harness import (
    BEGIN_MS,
    RUNS,
    Installation,
    Load,
    cpu_seconds,
    installed,
    load,
    news,
    own_core,
    query_paths,
    record,
    send_items,
)
from headwater.bundle import Bundle
from headwater.covisit_features import COVISITS
from headwater.index import ItemIndex
from headwater.index.snapshot import read_newest_snapshot
from headwater.query_features import Query, encode_queries
from headwater.stores import RedisFeatureStore
from headwater.user_state import EMPTY
from serving.state import instance_name
from tests.services import poll
from tests.system import headwater

EVENTS = 100_000
USERS, JOB_USERS = 10_000, 30_000
CONNECTIONS = 32
SECONDS = 5.0
K, JOB_K = 50, 100
ITEMS_PER_S = 300
WANTED_PER_S = 1_500
"""Queries a second that a core should answer."""
FLOOR_QUERIES = 500
SNAPSHOT_EVERY_S = 60.0


@click.command()
@click.option("--runs", default=RUNS, show_default=True, type=click.IntRange(1))
def main(runs: int) -> None:
    """Measure and keep the figures."""
    data = news()
    with (
        installed(snapshot_every_s=SNAPSHOT_EVERY_S) as installation,
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
    ):
        sent, _ = installation.stream_in(data, data.until(EVENTS))
        installation.train()
        installation.server.wait_ready()
        users, topics = data.users(USERS), installation.topics()
        paths = query_paths(users, topics, K)
        figures: dict[str, Any] = {"items": sent.items, "users": len(users), "k": K, "runs": runs}
        parts = _parts(installation)
        with own_core(installation.server):
            load(installation.settings.serving_url, paths, CONNECTIONS, 2.0)
            figures["saturated"] = _medians([_saturated(installation, paths) for _ in range(runs)])
            floors = [asyncio.run(_floor(installation, *parts, users, topics)) for _ in range(runs)]
            figures["floor_us"] = statistics.median(floors)
            everybody = data.users(JOB_USERS)
            figures["notify"] = _medians([_notified(installation, everybody, topics[0], run) for run in range(runs)])
            rates = {"half_load": figures["saturated"]["queries_per_s"] / 2, "half_wanted": WANTED_PER_S / 2}
            for name, per_s in rates.items():
                asked = [_with_inserts(installation, pool, paths, per_s, topics[0]) for _ in range(runs)]
                figures[name] = _medians(asked)
    figures["over_floor"] = round(figures["saturated"]["cpu_us_a_query"] / figures["floor_us"], 2)
    click.echo(json.dumps(figures, indent=1))
    record("queries", figures)


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the medians, and how many queries failed in all."""
    medians = {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}
    return medians | {"failed": sum(run["failed"] for run in runs)} if "failed" in medians else medians


def _latencies(found: Load) -> dict[str, float]:
    return {"failed": found.failed, "p50_ms": found.quantile(0.5), "p99_ms": found.quantile(0.99)}


def _saturated(installation: Installation, paths: list[str]) -> dict[str, float]:
    before = cpu_seconds(installation.server)
    found = load(installation.settings.serving_url, paths, CONNECTIONS, SECONDS)
    cpu = cpu_seconds(installation.server) - before
    answered = len(found.latencies_ms)
    return {
        "queries_per_s": found.per_s,
        "queries_per_core_s": answered / cpu,
        "cpu_us_a_query": cpu / answered * 1e6,
        **_latencies(found),
    }


def _with_inserts(
    installation: Installation, pool: ProcessPoolExecutor, paths: list[str], per_s: float, topic: str
) -> dict[str, float]:
    """Ask while items are sent from a process of their own: a thread of this one would make the queries late."""
    pool.submit(int).result()
    sending = pool.submit(send_items, installation.settings, topic, BEGIN_MS, ITEMS_PER_S, SECONDS)
    found = load(installation.settings.serving_url, paths, CONNECTIONS, SECONDS, per_s)
    sending.result()
    return {"queries_per_s": found.per_s, **_latencies(found)}


def _parts(installation: Installation) -> tuple[Bundle, ItemIndex]:
    """Return the live bundle, and the index as the server has written it down."""
    settings = installation.settings
    live = installation.server.get("/v1/status").json()["live"]
    snapshots = settings.state_dir / "snapshots" / instance_name(settings)
    poll(lambda: any((snapshots / live).glob("[!.]*")), 2 * SNAPSHOT_EVERY_S, "a snapshot")
    snapshot = read_newest_snapshot(snapshots, live)
    assert snapshot is not None
    return Bundle.load(settings.model_dir / live), snapshot[0]


async def _floor(
    installation: Installation, bundle: Bundle, index: ItemIndex, users: list[str], topics: list[str]
) -> float:
    """Return the microseconds of this process that a query takes from features to candidates, without HTTP."""
    store = RedisFeatureStore.of(installation.settings)
    begun = time.process_time()
    for place, user_id in enumerate(users[:FLOOR_QUERIES]):
        topic = topics[place % len(topics)]
        (known,), _ = await store.users_and_delivered([user_id])
        query = Query(known.state if known else EMPTY, topic)
        embedding = bundle.user_tower.embed(encode_queries([query], BEGIN_MS, bundle.vocabulary))
        index.search(np.ascontiguousarray(embedding[:, :-COVISITS]), K, topic, BEGIN_MS)
    seconds = time.process_time() - begun
    await store.close()
    return seconds / FLOOR_QUERIES * 1e6


def _notified(installation: Installation, users: list[str], topic: str, run: int) -> dict[str, float]:
    settings = installation.settings
    path, output = settings.state_dir / "users.csv", settings.state_dir / f"candidates-{run}.jsonl"
    path.write_text("user_id\n" + "\n".join(users) + "\n", encoding="utf-8")
    options = ("--topic", topic, "--users", str(path), "--k", str(JOB_K), "--output", str(output), "--json")
    done = headwater(settings, "notify", *options)
    return {"k": JOB_K, "users": len(users), "users_per_s": len(users) / json.loads(done.stdout)["seconds"]}


if __name__ == "__main__":
    main()

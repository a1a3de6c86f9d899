"""Starting a server: `python -m benchmarks.start --items 100000`.

Synthetic items of 64 dimensions lie in `item-embeddings` and, but for the last 2,000, in a snapshot built in this process as
a server builds it. A server starts from snapshot and tail, then one that has no snapshot, from the log alone: seconds from
the start of the process to ready, and the memory it has then. No item has activity. A user's record of 50 engagements is
weighed by Redis itself.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from kafka import KafkaProducer
from redis import Redis

from benchmarks.harness import RUNS, record, services
from benchmarks.items import CLUSTERS, DIMENSION, NOW_MS, built, make_items
from headwater.events import Engagement
from headwater.generations import Generations
from headwater.index.snapshot import write_snapshot
from headwater.item_embedding import ItemEmbedding, embedding_key, encode_item_embedding
from headwater.names import ITEM_EMBEDDINGS
from headwater.settings import Settings
from headwater.stores import FeatureWrites, RedisFeatureStore
from headwater.user_state import HISTORY_LENGTH
from headwater.users import Placed, Users
from serving.state import instance_name
from streams.follower import end_offsets
from tests.bundles import make_bundle
from tests.services import poll
from tests.system import Process, with_server_port

VERSION = "synthetic"
TAIL = 2_000
NEVER_S = 1e6
READY_S = 3_600.0
USER_TOPICS = 20
ITEM_IDS = {"six_digits": "{:06}", "uuids": "00000000-0000-4000-8000-{:012}"}
Figures = dict[str, Any]


@click.command()
@click.option("--items", "sizes", type=click.IntRange(10_000), multiple=True, default=(100_000,), show_default=True)
@click.option("--runs", default=RUNS, show_default=True, type=click.IntRange(1), help="Starts from a snapshot.")
@click.option("--rebuild/--no-rebuild", default=True, show_default=True, help="Start once without a snapshot, too.")
def main(sizes: tuple[int, ...], runs: int, rebuild: bool) -> None:
    """Measure and keep the figures."""
    figures: Figures = {"dimension": DIMENSION, "tail": TAIL, "runs": runs}
    figures["rows"] = [_row(size, runs, rebuild) for size in sizes]
    figures["user_record"] = _user_record()
    click.echo(json.dumps(figures, indent=1))
    record("start", figures)


def _row(size: int, runs: int, rebuild: bool) -> Figures:
    with services(snapshot_every_s=NEVER_S) as settings:
        snapshot = _prepare(settings, size)
        starts = [_started(settings) for _ in range(runs)]
        row: Figures = {"items": size, "snapshot_mb": _megabytes(snapshot)}
        row["snapshot"] = {name: round(statistics.median(each[name] for each in starts), 2) for name in starts[0]}
        if rebuild:
            row["rebuild"] = _started(with_server_port(settings))
    click.echo(json.dumps(row), err=True)
    return row


def _prepare(settings: Settings, size: int) -> Path:
    """Make a live generation of synthetic items, in Kafka and in a snapshot; return the snapshot."""
    items, _ = make_items(size, np.random.default_rng(0))
    _publish(settings, items[:-TAIL])
    applied = end_offsets(settings)[ITEM_EMBEDDINGS]
    _publish(settings, items[-TAIL:])
    make_bundle(settings.model_dir, VERSION, [f"t{number}" for number in range(CLUSTERS)], dimension=DIMENSION)
    generations = Generations(Redis.from_url(settings.redis_url.get_secret_value()), settings.names)
    generations.request(VERSION)
    generations.update(VERSION, lambda generation: generation.model_copy(update={"state": "built"}))
    generations.move_alias(generations.alias(), VERSION)
    index, _ = built(items[:-TAIL])
    return write_snapshot(settings.state_dir / "snapshots" / instance_name(settings), VERSION, index, applied)


def _publish(settings: Settings, items: Sequence[ItemEmbedding]) -> None:
    producer = KafkaProducer(**settings.kafka_options(), linger_ms=50, batch_size=2**18)
    topic = settings.names.topic(ITEM_EMBEDDINGS)
    for item in items:
        producer.send(topic, key=embedding_key(VERSION, item.item_id), value=encode_item_embedding(item))
    producer.flush()
    producer.close()


def _started(settings: Settings) -> Figures:
    """Start a server, end it when it is ready; return how long that took and its memory."""
    begun = time.perf_counter()
    with Process(settings, "serve") as server, httpx.Client(base_url=settings.serving_url) as client:
        poll(lambda: _is_ready(server, client), READY_S, "the server is ready")
        ready_s = time.perf_counter() - begun
        status = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    kilobytes = {name: int(status[name].split()[0]) for name in ("VmRSS", "VmHWM")}
    return {
        "ready_s": round(ready_s, 2),
        "resident_mb": round(kilobytes["VmRSS"] / 1024),
        "peak_mb": round(kilobytes["VmHWM"] / 1024),
    }


def _is_ready(server: Process, client: httpx.Client) -> bool:
    assert server.running, server.output()
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


def _megabytes(directory: Path) -> int:
    return round(sum(path.stat().st_size for path in directory.iterdir()) / 2**20)


def _user_record() -> dict[str, int]:
    """Return the bytes Redis keeps for a user with a full history, key and all, by the kind of ids."""
    with services() as settings, Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        records = {form.format(1): full_record(form) for form in ITEM_IDS.values()}
        asyncio.run(_commit(settings, FeatureWrites(users=records)))
        keys = map(settings.names.user, records)
        return {f"{name}_bytes": redis.memory_usage(key, samples=0) for name, key in zip(ITEM_IDS, keys, strict=True)}


def full_record(form: str) -> bytes:
    """Return the record of a user with a full history, of items named in a form."""
    users, names = Users(), map(form.format, range(HISTORY_LENGTH))
    events = [
        Engagement(event_id=str(number), user_id="u", item_id=name, occurred_at=NOW_MS + number)
        for number, name in enumerate(names)
    ]
    users.fold([Placed(event, topics_of(number), 0, number) for number, event in enumerate(events)])
    return users.encoded([0])[0]


def topics_of(number: int) -> tuple[str, ...]:
    """Return the topics of such an item."""
    return (str(100 + number % USER_TOPICS),)


async def _commit(settings: Settings, writes: FeatureWrites) -> None:
    store = RedisFeatureStore.of(settings)
    await store.commit(writes)
    await store.close()


if __name__ == "__main__":
    main()

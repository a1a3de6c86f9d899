"""From Kafka to an answer: `python -m benchmarks.freshness`.

A server with 100,000 news clicks behind it answers 300 queries a second while 300 items or 2,000 engagements a second come
in, or nothing else at all. Of some the time is taken from the append, as the broker stamps it in whole milliseconds, to the
first answer that shows them: the item is a candidate, or what the user engaged with is none any more. The floor is an insert
and a search in process: hnswlib, and Milvus Lite where `pip install -c constraints.txt milvus-lite pymilvus` was run.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from importlib import import_module
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np
import numpy.typing as npt
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from benchmarks.harness import RUNS, installed, load, news, paced, query_paths, record, send_items
from benchmarks.items import DIMENSION, make_items, plain_hnswlib
from headwater.events import Engagement, Item
from headwater.index.graph_nodes import MIN_EF
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.producer import EngagementProducer
from headwater.settings import Settings

EVENTS = 100_000
USERS = 10_000
K = 50
CONNECTIONS, QUERIES_PER_S = 8, 300
ITEMS_PER_S, ENGAGEMENTS_PER_S = 300, 2_000
ALONE_ITEMS = 200
SECONDS, WARM_S = 20.0, 3.0
POLL_S, PAUSE_S, LOST_S = 0.002, 0.05, 30.0
SAMPLED = "sampled"
FLOOR_ITEMS, FLOOR_SAMPLES, FLOOR_BATCH = 35_000, 100, 1_000
Figures = dict[str, Any]
Embeddings = npt.NDArray[np.float32]
Put = Callable[[int, Embeddings], object]
Search = Callable[[Embeddings], object]


class Probe:
    """Appends single events and waits until an answer shows them.

    Args:
        settings: The installation.
        now_ms: When these events happen.
    """

    def __init__(self, settings: Settings, now_ms: int) -> None:
        parts = urlsplit(settings.serving_url)
        self._names, self._now_ms, self._numbers = settings.names, now_ms, count()
        self._former = ""
        self._http = HTTPConnection(parts.hostname or "", parts.port)
        self._producer = KafkaProducer(**settings.kafka_options(), acks="all")

    def item(self) -> float:
        """Publish an item; return the ms from its append until it is a candidate."""
        item = Item(item_id=f"{SAMPLED}-{next(self._numbers)}", topics=(SAMPLED,), published_at=self._now_ms)
        (path,) = query_paths([SAMPLED], [SAMPLED], K)
        waited_ms = self._wait(ITEMS, item.item_id, item.to_wire(), lambda: item.item_id in self._candidates(path))
        if self._former:  # one stays, since an unknown topic costs the server more than an answer
            self._producer.send(self._names.topic(ITEMS), key=self._former.encode(), value=None)
        self._former = item.item_id
        return waited_ms

    def engagement(self, user_id: str, topic: str) -> float:
        """Let a user engage with the best candidate; return the ms from the append until it is none."""
        (path,) = query_paths([user_id], [topic], K)
        best, event_id = self._candidates(path)[0], f"{SAMPLED}-{next(self._numbers)}"
        event = Engagement(event_id=event_id, user_id=user_id, item_id=best, occurred_at=self._now_ms)
        return self._wait(ENGAGEMENTS, user_id, event.to_wire(), lambda: best not in self._candidates(path))

    def _wait(self, topic: str, key: str, value: bytes, seen: Callable[[], bool]) -> float:
        sent = self._producer.send(self._names.topic(topic), key=key.encode(), value=value)
        appended_ms: int = sent.get(LOST_S).timestamp
        while not seen():
            if time.time() * 1000 - appended_ms > LOST_S * 1000:
                raise RuntimeError(f"{topic}: no answer shows {key}")
            time.sleep(POLL_S)
        return time.time() * 1000 - appended_ms

    def _candidates(self, path: str) -> list[str]:
        """Return an answer's items, none as long as nothing carries the topic."""
        self._http.request("GET", path)
        response = self._http.getresponse()
        document = json.loads(response.read())
        if response.status not in (200, 404):
            raise RuntimeError(f"{path}: {document}")
        return [candidate["item_id"] for candidate in document.get("candidates", ())]


@dataclass(frozen=True)
class Measured:
    """A server under queries and events, both from processes of their own."""

    pool: ProcessPoolExecutor
    url: str
    paths: list[str]
    pauses: Random = field(default_factory=lambda: Random(0))

    def under(self, send: Callable[[float], float], wait: Callable[[], float], seconds: float) -> Figures:
        """Return how long single events take while `send` sends others."""
        queries = self.pool.submit(load, self.url, self.paths, CONNECTIONS, seconds, QUERIES_PER_S)
        sending, waits_ms = self.pool.submit(send, seconds), list[float]()
        while not queries.done():
            waits_ms.append(wait())
            time.sleep(self.pauses.uniform(0, PAUSE_S))  # so that no sample keeps in step with the workers' batches
        found = queries.result()
        return {
            "samples": len(waits_ms),
            **_quantiles(waits_ms),
            "others_per_s": sending.result(),
            "queries_per_s": found.per_s,
            "query_p99_ms": found.quantile(0.99),
            "failed_queries": found.failed,
        }


@click.command()
@click.option("--runs", default=RUNS, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=SECONDS, show_default=True, type=click.FloatRange(1), help="Of each run.")
def main(runs: int, seconds: float) -> None:
    """Measure and keep the figures."""
    data, random = news(), Random(1)
    end_ms = data.until(EVENTS)
    known = [item.item_id for item in data.items if item.published_at < end_ms]
    figures: Figures = {"items": len(known), "k": K, "runs": runs, "seconds": seconds}
    with installed() as installation, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        settings = installation.settings
        installation.stream_in(data, end_ms)
        installation.train()
        installation.server.wait_ready()
        _stamp_on_append(settings)
        users, topics, probe = data.users(USERS), installation.topics(), Probe(settings, end_ms)
        measured = Measured(pool, settings.serving_url, query_paths(users, topics, K))
        publish = partial(send_items, settings, topics[0], end_ms, ITEMS_PER_S)
        engage = partial(_engage, settings, users, known, end_ms)

        def engaged() -> float:
            return probe.engagement(random.choice(users), random.choice(topics))

        measured.under(publish, probe.item, WARM_S)
        figures["alone"] = _alone(probe)
        figures["new_items"] = _over([measured.under(publish, probe.item, seconds) for _ in range(runs)])
        figures["engagements"] = _over([measured.under(engage, engaged, seconds) for _ in range(runs)])
    figures["in_process"] = _floors()
    click.echo(json.dumps(figures, indent=1))
    record("freshness", figures)


def _stamp_on_append(settings: Settings) -> None:
    """Have the broker stamp records when it appends them; producers stamp them earlier."""
    admin = KafkaAdminClient(**settings.kafka_options())
    stamped = {"message.timestamp.type": "LogAppendTime"}
    names = (settings.names.topic(name) for name in (ITEMS, ENGAGEMENTS))
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, stamped) for name in names])
    admin.close()


def _engage(settings: Settings, users: list[str], items: list[str], at_ms: int, seconds: float) -> float:
    name, random = f"other-{time.time_ns()}", Random(2)
    with EngagementProducer(settings) as producer:

        def send(number: int) -> None:
            who, what = random.choice(users), random.choice(items)
            event_id = f"{name}-{number}"
            producer.send(Engagement(event_id=event_id, user_id=who, item_id=what, occurred_at=at_ms))

        return paced(ENGAGEMENTS_PER_S, seconds, send)


def _alone(probe: Probe) -> Figures:
    waits_ms = []
    for _ in range(ALONE_ITEMS):
        waits_ms.append(probe.item())
        time.sleep(PAUSE_S)
    return {"samples": len(waits_ms), **_quantiles(waits_ms)}


def _quantiles(waits_ms: list[float]) -> Figures:
    p50, p99 = np.percentile(waits_ms, (50, 99)).tolist()
    return {"p50_ms": p50, "p99_ms": p99, "max_ms": max(waits_ms)}


def _over(runs: list[Figures]) -> Figures:
    """Return the medians of the runs, of the longest waits the longest, and all samples."""
    medians = {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}
    totals = {name: sum(run[name] for run in runs) for name in ("samples", "failed_queries")}
    return {**medians, **totals, "max_ms": round(max(run["max_ms"] for run in runs), 2)}


def _floors() -> Figures:
    """Return how long an insert and the search after it take, by what does it."""
    items, _ = make_items(FLOOR_ITEMS + FLOOR_SAMPLES, np.random.default_rng(0))
    embeddings = np.stack([item.embedding for item in items])
    figures: Figures = {"items": FLOOR_ITEMS, "samples": FLOOR_SAMPLES, "hnswlib": _timed(embeddings, *_hnswlib())}
    try:
        client = import_module("pymilvus").MilvusClient
        import_module("milvus_lite")
    except ImportError as error:
        click.echo(f"Milvus Lite is left out: {error}", err=True)
        return figures
    with tempfile.TemporaryDirectory() as directory, closing(client(str(Path(directory) / "milvus.db"))) as milvus:
        figures["milvus_lite"] = _timed(embeddings, *_milvus(milvus))
    return figures


def _timed(embeddings: Embeddings, put: Put, search: Search) -> Figures:
    for start in range(0, FLOOR_ITEMS, FLOOR_BATCH):
        put(start, embeddings[start : min(start + FLOOR_BATCH, FLOOR_ITEMS)])
    waits_ms = []
    for number in range(FLOOR_ITEMS, len(embeddings)):
        embedding, started = embeddings[number : number + 1], time.perf_counter()
        put(number, embedding)
        search(embedding)
        waits_ms.append((time.perf_counter() - started) * 1000)
    return _quantiles(waits_ms)


def _hnswlib() -> tuple[Put, Search]:
    index = plain_hnswlib(FLOOR_ITEMS + FLOOR_SAMPLES)
    index.set_ef(MIN_EF)
    return (
        lambda first, rows: index.add_items(rows, np.arange(first, first + len(rows))),
        lambda rows: index.knn_query(rows, k=K),
    )


def _milvus(client: Any) -> tuple[Put, Search]:
    name = "items"
    client.create_collection(name, dimension=DIMENSION, metric_type="IP", consistency_level="Strong")
    return (
        lambda first, rows: client.upsert(name, [{"id": first + n, "vector": row} for n, row in enumerate(rows)]),
        lambda rows: client.search(name, data=rows.tolist(), limit=K),
    )


if __name__ == "__main__":
    main()

"""Ingest: a stream worker beside two, an empty Faust agent, a bare aiokafka loop and Quix: `python -m benchmarks.ingest`.

News clicks wait in Kafka, each in a record of its own or framed, then one process takes them in, or two. The bare loop and
Quix Streams do the same fold and the same writes to Redis and Kafka; the empty agent counts records and does nothing.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import click
from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import Transport
from kafka import KafkaProducer

from benchmarks.harness import BEGIN_MS, RUNS, News, news, record, services
from benchmarks.ingest_loop import IngestLoop
from headwater.names import ENGAGEMENTS
from headwater.producer import EngagementProducer
from headwater.settings import Settings, read_settings
from headwater.stores import FeatureWrites, RedisFeatureStore
from headwater.stores.protocol import StoredItem
from headwater.topics import ensure_topics
from streams.app import COMMIT_INTERVAL_S, make_app
from streams.batches import MAX_BATCH
from streams.hosting import running
from streams.record import Record
from streams.report import Report
from tests.system import environment

EVENTS = 100_000
ENOUGH = 0.95
SHAPES = ("single", "framed")
WORKERS = {"two-workers": 2}
TELL_S = 0.1
TIMEOUT_S = 300.0
POLL_MS = 20
QUIX = Path(".venv-quix/bin/python")


@click.command()
@click.option("--runs", default=RUNS, show_default=True, type=click.IntRange(1))
@click.option("--peer", type=click.Choice(["empty-faust", "bare"]), hidden=True)
@click.option("--stats-file", type=click.Path(path_type=Path), hidden=True)
def main(runs: int, peer: str | None, stats_file: Path | None) -> None:
    """Measure and keep the figures."""
    if peer is not None and stats_file is not None:
        asyncio.run(PEERS[peer](read_settings(), stats_file))
        return
    data = news()
    found: dict[str, dict[str, list[float]]] = {shape: {} for shape in SHAPES}
    with services() as settings:
        for run in range(runs):
            for shape in SHAPES:
                for case, rate in _rates(settings, data, shape, run).items():
                    found[shape].setdefault(case, []).append(rate)
                    click.echo(f"{shape} {case}: {rate:,.0f} events/s", err=True)
    figures: dict[str, Any] = {"events": EVENTS, "runs": runs}
    for shape, cases in found.items():
        medians = {case: round(statistics.median(rates)) for case, rates in cases.items()}
        figures[shape] = {f"{case}_events_per_s": median for case, median in medians.items()}
        figures[shape] |= {
            f"over_{case}": round(medians["headwater"] / median, 2)
            for case, median in medians.items()
            if case != "headwater"
        }
    click.echo(json.dumps(figures, indent=1))
    record("ingest", figures)


def _rates(settings: Settings, data: News, shape: str, run: int) -> dict[str, float]:
    cases = {
        "headwater": (sys.executable, "-m", "headwater", "stream"),
        "two-workers": (sys.executable, "-m", "headwater", "stream"),
        "bare": (sys.executable, "-m", "benchmarks.ingest", "--peer", "bare"),
        "quix": (str(QUIX), "-m", "benchmarks.ingest_quix"),
        "empty-faust": (sys.executable, "-m", "benchmarks.ingest", "--peer", "empty-faust"),
    }
    if not QUIX.is_file():
        click.echo(f"Quix Streams is left out: {QUIX} is absent, see benchmarks/ingest_quix.py", err=True)
        del cases["quix"]
    if shape == "framed":
        del cases["empty-faust"]  # it would count frames
        del cases["two-workers"]  # one would have fetched all frames before the other joins
    rates = {}
    for case, command in cases.items():
        own = settings.model_copy(update={"namespace": f"{shape}-{case}-{run}"})
        sent = _prepared(own, data, shape)
        stats_files = [own.state_dir / f"{own.namespace}-{worker}.json" for worker in range(WORKERS.get(case, 1))]
        processes = [
            subprocess.Popen([*command, "--stats-file", str(path)], env=environment(own)) for path in stats_files
        ]
        try:
            rates[case] = _rate(stats_files, processes, sent)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    return rates


def _prepared(settings: Settings, data: News, shape: str) -> int:
    """Put the catalogue into Redis and the engagements into Kafka; return how many."""
    ensure_topics(settings)
    events = list(data.engagements.events(BEGIN_MS, data.until(EVENTS)))
    wanted = {event.item_id for event in events}
    items = {item.item_id: StoredItem(item, 0, 0) for item in data.items if item.item_id in wanted}
    asyncio.run(_commit(settings, FeatureWrites(items=dict(items))))
    if shape == "framed":
        with EngagementProducer(settings) as producer:
            for event in events:
                producer.send(event)
    else:
        singles = KafkaProducer(**settings.kafka_options(), linger_ms=5)
        for event in events:
            singles.send(settings.names.topic(ENGAGEMENTS), key=event.user_id.encode(), value=event.to_wire())
        singles.flush()
        singles.close()
    return len(events)


async def _commit(settings: Settings, writes: FeatureWrites) -> None:
    store = RedisFeatureStore.of(settings)
    await store.commit(writes)
    await store.close()


def _rate(stats_files: Sequence[Path], processes: Sequence[subprocess.Popen[bytes]], sent: int) -> float:
    """Return events a second, from when all processes are at work to when nearly all is done."""
    begun: tuple[float, int] | None = None
    deadline = time.perf_counter() + TIMEOUT_S
    while time.perf_counter() < deadline:
        time.sleep(TELL_S / 4)
        done, at = [_done(path) for path in stats_files], time.perf_counter()
        if begun is None and all(done):
            begun = at, sum(done)
        elif begun is not None and sum(done) >= ENOUGH * sent:
            return (sum(done) - begun[1]) / (at - begun[0])
        if any(process.poll() is not None for process in processes):
            break
    raise RuntimeError(f"{stats_files}: {sent} events were not taken in")


def _done(stats_file: Path) -> int:
    try:
        report: dict[str, int] = json.loads(stats_file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
    return report["applied"] + report["duplicates"] + report["dead_letters"]


async def _telling(report: Report, stats_file: Path) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        report.write(stats_file)


async def _empty_faust(settings: Settings, stats_file: Path) -> None:
    app, report = make_app(settings, "empty"), Report()
    app.transport = Transport(app.conf.broker_consumer, app)

    async def agent(stream: Any) -> None:
        async for _ in stream:
            report.applied += 1

    app.agent(app.topic(settings.names.topic(ENGAGEMENTS), key_type=bytes, value_type=bytes), name="empty")(agent)
    async with running(app):
        await _telling(report, stats_file)


async def _bare(settings: Settings, stats_file: Path) -> None:
    report = Report()
    ingest = await IngestLoop.started(settings, report)
    consumer = AIOKafkaConsumer(
        settings.names.topic(ENGAGEMENTS),
        bootstrap_servers=settings.kafka_bootstrap_servers,
        group_id="bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    telling, committed_s = asyncio.create_task(_telling(report, stats_file)), time.monotonic()
    while not telling.done():
        polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_BATCH)
        if polled:
            await ingest.take_in([Record.of(each) for found in polled.values() for each in found])
        if time.monotonic() - committed_s > COMMIT_INTERVAL_S:
            await consumer.commit()
            committed_s = time.monotonic()


PEERS: dict[str, Callable[[Settings, Path], Coroutine[Any, Any, None]]] = {"empty-faust": _empty_faust, "bare": _bare}


if __name__ == "__main__":
    main()

"""More than there is capacity for: `python -m benchmarks.overload`.

A server with 100,000 news clicks behind it gets three times the queries it can answer, over more connections than it takes
queries at once; latencies count from when a query is sent, and nobody who is refused waits. Then a stream worker gets a
burst of 100,000 more clicks as fast as they can be sent; its lag is events sent but not accounted for.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import click

from benchmarks.harness import (
    RUNS,
    Installation,
    Load,
    News,
    cpu_seconds,
    installed,
    load,
    news,
    own_core,
    query_paths,
    record,
)
from headwater.events import Engagement
from headwater.producer import EngagementProducer
from headwater.replay import wait_until_items_are_taken_in

EVENTS, BURST = 100_000, 100_000
USERS = 10_000
K = 50
CONNECTIONS, FLOODING = 32, 768
TIMES = 3
SECONDS, WARM_S, RECOVERY_S = 5.0, 2.0, 1.0
TELL_S = 0.25
Figures = dict[str, Any]


@dataclass
class Flood:
    """What became of queries sent beyond capacity."""

    answered: Load
    refused: Load
    with_retry_after: int = 0
    failed: int = 0


@click.command()
@click.option(
    "--runs", default=RUNS, show_default=True, type=click.IntRange(1), help="Of the flood; the burst comes once."
)
def main(runs: int) -> None:
    """Measure and keep the figures."""
    data = news()
    with installed() as installation:
        installation.stream_in(data, data.until(EVENTS))
        installation.train()
        installation.server.wait_ready()
        paths = query_paths(data.users(USERS), installation.topics(), K)
        with own_core(installation.server):
            load(installation.settings.serving_url, paths, CONNECTIONS, WARM_S)
            floods = [_flooded(installation, paths) for _ in range(runs)]
        figures: Figures = {"k": K, "runs": runs, "most_at_once": installation.settings.serving_max_concurrency}
        figures["queries"] = {name: round(statistics.median(run[name] for run in floods), 3) for name in floods[0]}
        figures["queries"]["failed"] = sum(run["failed"] for run in floods)
        figures["stream"] = _burst(installation, data)
    click.echo(json.dumps(figures, indent=1))
    record("overload", figures)


def _flooded(installation: Installation, paths: Sequence[str]) -> dict[str, float]:
    url, server = installation.settings.serving_url, installation.server
    capacity = load(url, paths, CONNECTIONS, SECONDS).per_s
    before_s = cpu_seconds(server)
    flood = asyncio.run(_flood(url, paths, TIMES * capacity))
    taken_s = cpu_seconds(server) - before_s
    after = [load(url, paths, CONNECTIONS, seconds) for seconds in (RECOVERY_S, SECONDS)]
    refused = len(flood.refused.latencies_ms)
    assert refused, f"{TIMES} times {capacity:.0f} queries a second are no overload"
    return {
        "capacity_per_s": capacity,
        "sent_per_s": flood.answered.per_s + flood.refused.per_s,
        "cores_taken": taken_s / flood.answered.seconds,
        "answered_per_s": flood.answered.per_s,
        "answered_p50_ms": flood.answered.quantile(0.5),
        "answered_p99_ms": flood.answered.quantile(0.99),
        "refused_share": refused / (refused + len(flood.answered.latencies_ms)),
        "refused_with_retry_after": flood.with_retry_after / refused,
        "refused_p50_ms": flood.refused.quantile(0.5),
        "refused_p99_ms": flood.refused.quantile(0.99),
        "capacity_in_the_next_second": after[0].per_s / capacity,
        "p99_ms_in_the_next_second": after[0].quantile(0.99),
        "capacity_later": after[1].per_s / capacity,
        "failed": flood.failed + sum(each.failed for each in after),
    }


async def _flood(url: str, paths: Sequence[str], per_s: float) -> Flood:
    flood, turn, parts = Flood(Load([], 0, SECONDS), Load([], 0, SECONDS)), cycle(paths), urlsplit(url)
    opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(FLOODING)]
    started, sent = time.perf_counter(), 0

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while (due := started + sent / per_s) < started + SECONDS:
            sent += 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            begun = time.perf_counter()
            writer.write(f"GET {next(turn)} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            status, taken_ms = int(head.split()[1]), (time.perf_counter() - begun) * 1000
            if status == 200:
                flood.answered.latencies_ms.append(taken_ms)
            elif status == 503:
                flood.refused.latencies_ms.append(taken_ms)
                flood.with_retry_after += b"\r\nretry-after:" in head
            else:
                flood.failed += 1
        writer.close()

    await asyncio.gather(*(ask(*connection) for connection in opened))
    flood.answered.seconds = flood.refused.seconds = time.perf_counter() - started
    return flood


@dataclass
class Burst:
    """Events on their way.

    Attributes:
        lag: (seconds, events sent but not accounted for).
    """

    sent: int = 0
    lag: list[tuple[float, int]] = field(default_factory=list)

    def send(self, installation: Installation, events: Sequence[Engagement]) -> float:
        """Send as fast as it goes and return when all of it was acknowledged."""
        with EngagementProducer(installation.settings) as producer:
            for event in events:
                producer.send(event)
                self.sent += 1
        return time.perf_counter()


def _burst(installation: Installation, data: News) -> Figures:
    begin_ms, end_ms = data.until(EVENTS), data.until(EVENTS + BURST)
    with EngagementProducer(installation.settings) as producer:
        for item in data.items:
            if begin_ms <= item.published_at < end_ms:
                producer.send_item(item)
    wait_until_items_are_taken_in(installation.settings)
    events, before, burst = list(data.engagements.events(begin_ms, end_ms)), installation.counters(), Burst()
    already, started = sum(before.values()), time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(burst.send, installation, events)
        while not sending.done() or burst.lag[-1][1]:
            time.sleep(TELL_S)
            lag = already + burst.sent - sum(installation.counters().values())
            burst.lag.append((round(time.perf_counter() - started, 2), lag))
            assert time.perf_counter() - started < 600, "the burst is not accounted for"
    sent_s, drained_s = sending.result() - started, burst.lag[-1][0]
    left = max(lag for at_s, lag in burst.lag if at_s >= sent_s)
    return {
        "events": len(events),
        "sent_per_s": round(len(events) / sent_s),
        "longest_lag": max(lag for _, lag in burst.lag),
        "per_s_while_sending": round((len(events) - left) / sent_s),
        "per_s_afterwards": round(left / (drained_s - sent_s)),
        "drained_after_s": drained_s,
        **{name: count - before[name] for name, count in installation.counters().items()},
        "lag": burst.lag[:: max(1, len(burst.lag) // 20)],
    }


if __name__ == "__main__":
    main()

"""What the speed benchmarks share: an installation on real services, load on it, and where figures go."""

import asyncio
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from headwater.datafiles import EngagementTable, read_engagements, read_items
from headwater.errors import UsageError
from headwater.events import Item
from headwater.producer import EngagementProducer
from headwater.replay import LEAD_MS, Replayed, in_event_time, known_by, replay_events, wait_until_items_are_taken_in
from headwater.settings import Settings
from headwater.topics import ensure_topics
from tests.services import KafkaService, RedisService, poll
from tests.system import Process, Server, headwater, settings_of, stats_file, with_server_port

NEWS = Path("../shared/data/globo")
FIGURES = Path(__file__).parent / "results" / "speed"
BEGIN_MS = 1_507_507_200_000
"""9 October 2017, from where the news are replayed."""
RUNS = 5
LISTENED_TOPICS = 20
PAUSE_S = 0.005


@dataclass(frozen=True)
class News:
    """The news clicks and articles, articles in the order in which they are known."""

    engagements: EngagementTable
    items: list[Item]

    def until(self, count: int) -> int:
        """Return when `count` engagements have passed since `BEGIN_MS`, at most the time of the last one."""
        occurred_ms = self.engagements.occurred_ms
        first = int((occurred_ms < BEGIN_MS).sum())
        return int(occurred_ms[min(first + count, len(occurred_ms) - 1)])

    def users(self, count: int) -> list[str]:
        """Return users who engage from `BEGIN_MS` on."""
        first = int((self.engagements.occurred_ms < BEGIN_MS).sum())
        return list(dict.fromkeys(self.engagements.user_ids[first : first + 20 * count].tolist()))[:count]


def news() -> News:
    """Return the news data.

    Raises:
        UsageError: it is absent.
    """
    if not NEWS.is_dir():
        raise UsageError(f"{NEWS} is absent: this benchmark replays the news clicks")
    engagements = read_engagements(NEWS / "engagements.parquet")
    return News(engagements, known_by(read_items(NEWS / "items.parquet"), engagements))


@dataclass(frozen=True)
class Installation:
    """A stream worker and a server on real Kafka and Redis, nothing in them yet."""

    settings: Settings
    stream: Process
    server: Server

    def stream_in(self, data: News, end_ms: int, begin_ms: int = BEGIN_MS, known_ms: int = 0) -> tuple[Replayed, float]:
        """Replay engagements, and items published since `known_ms`; return what was sent and the seconds until all is done."""
        items = [item for item in data.items if known_ms <= item.published_at < end_ms]
        events = in_event_time(items, data.engagements.events(begin_ms, end_ms), LEAD_MS)
        before, started = sum(self.counters().values()), time.perf_counter()
        with EngagementProducer(self.settings) as producer:
            *_, sent = replay_events(producer, events, None, lambda: wait_until_items_are_taken_in(self.settings))
        poll(lambda: sum(self.counters().values()) >= before + sent.engagements, 600, "everything is accounted for")
        return sent, time.perf_counter() - started

    def counters(self) -> dict[str, int]:
        """Return what the stream worker did so far."""
        try:
            report = json.loads(stats_file(self.settings).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return {name: report[name] for name in ("applied", "duplicates", "dead_letters")}

    def train(self) -> dict[str, Any]:
        """Refresh the model once and return the run record."""
        done = headwater(self.settings, "train", "--once", "--json", timeout_s=900)
        if done.returncode != 0:
            raise UsageError(f"the trainer failed: {done.stderr}")
        record: dict[str, Any] = json.loads(done.stdout)
        return record

    def topics(self) -> list[str]:
        """Return the topics with the most live items."""
        listed = self.server.get("/v1/topics").json()["topics"][:LISTENED_TOPICS]
        return [each["topic"] for each in listed]


@contextmanager
def services(**changes: object) -> Iterator[Settings]:
    """Start Kafka and Redis, everything in a directory of its own; `changes` are those of the settings."""
    with KafkaService() as kafka, RedisService() as redis, tempfile.TemporaryDirectory() as directory:
        settings = with_server_port(settings_of(kafka, redis, Path(directory), clock="watermark", **changes))
        ensure_topics(settings)
        yield settings


@contextmanager
def installed(**changes: object) -> Iterator[Installation]:
    """Start services, a stream worker and a server."""
    with services(**changes) as settings:
        stream = Process(settings, "stream", "--stats-file", str(stats_file(settings)))
        with stream, Server(settings) as server:
            yield Installation(settings, stream, server)


@contextmanager
def own_core(server: Process) -> Iterator[None]:
    """Give a server the last core, and everything else this process has started the others.

    Left to itself a scheduler may let them share one core while another is idle, and then it is the scheduler that is
    measured.
    """
    cores = sorted(os.sched_getaffinity(0))
    _place(os.getpid(), set(cores[:-1]) or set(cores))
    assert server.pid is not None
    _place(server.pid, {cores[-1]})
    try:
        yield
    finally:
        _place(os.getpid(), set(cores))


def _place(pid: int, cores: set[int]) -> None:
    """Let a process, its threads and all that it has started run on these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError, FileNotFoundError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)
            for child in (thread / "children").read_text().split():
                _place(int(child), cores)


@dataclass
class Load:
    """What a load found."""

    latencies_ms: list[float]
    failed: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Return answers a second."""
        return len(self.latencies_ms) / self.seconds

    def quantile(self, share: float) -> float:
        """Return the latency in ms below which that share of the answers came."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def query_paths(users: Sequence[str], topics: Sequence[str], k: int) -> list[str]:
    """Return paths of single queries: each user asks for another topic."""
    return [
        f"/v1/topics/{quote(topic, safe='')}/candidates?user_id={quote(user)}&k={k}"
        for user, topic in zip(users, cycle(topics), strict=False)
    ]


def load(url: str, paths: Sequence[str], connections: int, seconds: float, per_s: float | None = None) -> Load:
    """Query a server over open connections, each with one query at a time.

    Args:
        url: Of the server.
        paths: Asked for in turn.
        connections: How many.
        seconds: For how long.
        per_s: Queries a second, sent on time whatever the answers do, latencies counted from when they were due; None
            sends the next as soon as the last is answered.
    """
    return asyncio.run(_load(url, paths, connections, seconds, per_s))


async def _load(url: str, paths: Sequence[str], connections: int, seconds: float, per_s: float | None) -> Load:
    found, turn = Load([], 0, seconds), cycle(paths)
    started = time.perf_counter()
    sent = 0

    async def ask() -> None:
        nonlocal sent
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() - started < seconds:
            due = time.perf_counter()
            if per_s is not None:
                due = started + sent / per_s
                sent += 1
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(f"GET {next(turn)} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if head.startswith(b"HTTP/1.1 200"):
                found.latencies_ms.append((time.perf_counter() - due) * 1000)
            else:
                found.failed += 1
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    found.seconds = time.perf_counter() - started
    return found


def paced(per_s: int, seconds: float, send: Callable[[int], object]) -> float:
    """Call `send` with 0, 1 … so often for so long; return how many calls a second it were."""
    started, sent = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        for number in range(sent, int(passed * per_s)):
            send(number)
        sent = int(passed * per_s)
        time.sleep(PAUSE_S)
    return sent / (time.perf_counter() - started)


def send_items(settings: Settings, topic: str, published_at: int, per_s: int, seconds: float) -> float:
    """Send new items of a topic so often for so long; return how many a second it were."""
    with EngagementProducer(settings) as producer:
        name = f"new-{time.time_ns()}"
        return paced(
            per_s,
            seconds,
            lambda number: producer.send_item(
                {"item_id": f"{name}-{number}", "topics": [topic], "published_at": published_at}
            ),
        )


def cpu_seconds(process: Process) -> float:
    """Return the processor time a process has taken."""
    assert process.pid is not None
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """Return what it was measured on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores of {model.partition(':')[2].strip()}, Python {platform.python_version()}"


def record(name: str, figures: Mapping[str, Any], part: str = "", arguments: Sequence[str] | None = None) -> None:
    """Keep a benchmark's figures for the page of results.

    Args:
        name: Of the benchmark.
        figures: What was measured.
        part: Sets figures apart that are measured one by one.
        arguments: What measures these figures again, this process's own unless told.
    """
    FIGURES.mkdir(parents=True, exist_ok=True)
    given = [each for each in sys.argv[1:] if each != "--json"] if arguments is None else arguments
    document = {"command": shlex.join(["python", "-m", f"benchmarks.{name}", *given]), "machine": machine(), **figures}
    (FIGURES / f"{name}{part}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

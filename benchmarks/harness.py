"""What the speed benchmarks share: an installation on real services, load on it, and where figures go."""

import asyncio
import json
import os
import platform
import shlex
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import uvloop

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
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_load(url, paths, connections, seconds, per_s))


async def _load(url: str, paths: Sequence[str], connections: int, seconds: float, per_s: float | None) -> Load:
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    requests = cycle([f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode() for path in paths])
    asking = _Asking(requests, Load([], 0, seconds), loop.create_future(), per_s)
    opened = [
        await loop.create_connection(partial(_Connection, asking), parts.hostname or "", parts.port or 80)
        for _ in range(connections)
    ]
    asking.begin(seconds)
    if per_s is not None:  # the loop's own timers are late by up to a millisecond
        loop.add_signal_handler(signal.SIGALRM, asking.send_due)
        signal.setitimer(signal.ITIMER_REAL, 1 / per_s, 1 / per_s)
    try:
        await asking.done
    finally:
        if per_s is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            loop.remove_signal_handler(signal.SIGALRM)
        for transport, _ in opened:
            transport.close()
    asking.found.seconds = time.perf_counter() - asking.started
    return asking.found


class _Asking:
    """Sends what is due over the connections that wait for nothing."""

    def __init__(
        self, requests: Iterator[bytes], found: Load, done: "asyncio.Future[None]", per_s: float | None
    ) -> None:
        self.found, self.done, self.started = found, done, 0.0
        self._requests, self._per_s, self._sent = requests, per_s, 0
        self._free: deque[_Connection] = deque()  # in turn: a server hangs up on one that is silent for seconds
        self._open = 0
        self._until = 0.0

    def begin(self, seconds: float) -> None:
        """Start the clock."""
        self.started = time.perf_counter()
        self._until = self.started + seconds
        self._open = len(self._free)
        self.send_due()

    def send_due(self) -> None:
        """Send on free connections what is due by now; end once nothing is to be sent any more and all is answered."""
        now = time.perf_counter()
        while self._free:
            due = now if self._per_s is None else self.started + self._sent / self._per_s
            if due >= self._until:
                if len(self._free) == self._open and not self.done.done():
                    self.done.set_result(None)
                return
            if due > now:
                return
            self._sent += 1
            self._free.popleft().send(next(self._requests), due)

    def is_free(self, connection: "_Connection") -> None:
        """Use a connection again."""
        self._free.append(connection)
        if self.started:
            self.send_due()

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if not self.done.done():
            self.done.set_exception(error)


class _Connection(asyncio.Protocol):
    """Asks one query at a time, and reads of its answer no more than is needed to know it is complete."""

    def __init__(self, asking: _Asking) -> None:
        self._asking, self._due, self._missing, self._head = asking, 0.0, 0, b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._asking.is_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._asking.fail(error or ConnectionError("the server hung up"))

    def send(self, request: bytes, due: float) -> None:
        """Ask, and count the time from when it was due."""
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = head
            self._missing = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]) - len(body)
        if not self._missing:
            if self._head.startswith(b"HTTP/1.1 200"):
                self._asking.found.latencies_ms.append((time.perf_counter() - self._due) * 1000)
            else:
                self._asking.found.failed += 1
            self._head = b""
            self._asking.is_free(self)


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
        arguments: What measures these figures again, this process's own by default.
    """
    FIGURES.mkdir(parents=True, exist_ok=True)
    given = [each for each in sys.argv[1:] if each != "--json"] if arguments is None else arguments
    document = {"command": shlex.join(["python", "-m", f"benchmarks.{name}", *given]), "machine": machine(), **figures}
    (FIGURES / f"{name}{part}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

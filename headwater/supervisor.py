"""`headwater up`: every part of Headwater on one machine, under one supervisor."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

import click

from headwater.cli import SUPERVISOR
from headwater.errors import ServiceUnavailable, UsageError
from headwater.options import parse_duration
from headwater.settings import EMBEDDED_API_VERSION, Settings, read_settings
from headwater.topics import ensure_topics

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STEADY_S = 60.0
STOP_GRACE_S = 15.0
POLL_S = 0.2
COLOURS = (36, 32, 33, 35, 34, 31)
USAGE_EXIT = 2
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Part:
    """One process of the system.

    Attributes:
        command: What follows `python -m headwater`.
        restart: Whether a crash is answered by a new start.
    """

    name: str
    command: Sequence[str]
    restart: bool = True
    process: "subprocess.Popen[str] | None" = field(default=None, repr=False)
    started_at: float = 0.0
    backoff_s: float = FIRST_BACKOFF_S
    restart_at: float | None = None
    last_line: str = ""
    log_reader: threading.Thread | None = field(default=None, repr=False)


class Supervisor:
    """Starts parts, prefixes their output with their name, restarts what crashes, ends all together.

    A context manager: the parts are sessions of their own, so inside it the first signal to end is a `KeyboardInterrupt`, and
    further ones are ignored while the parts are stopped on exit.

    Args:
        environment: What every part gets on top of this process's environment.
        log: Where the parts' output goes; a terminal gets colours.
    """

    def __init__(self, environment: Mapping[str, str], log: IO[str] = sys.stderr) -> None:
        self.environment = dict(environment)
        self.parts: list[Part] = []
        self._log = log
        self._lock = threading.Lock()
        self._handlers: dict[int, Any] = {}
        self._starting = False
        self._interrupted = False

    def __enter__(self) -> Self:
        for number in ENDING_SIGNALS:
            self._handlers[number] = signal.signal(number, self._interrupt)
        if self._handlers[signal.SIGHUP] == signal.SIG_IGN:  # as nohup wants it
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupted = True
        self.stop()
        for number, former in self._handlers.items():
            signal.signal(number, former)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise `KeyboardInterrupt` the first time; `_popen` does it where a process would be left that no part knows."""
        first, self._interrupted = not self._interrupted, True
        if first and not self._starting:
            raise KeyboardInterrupt

    def say(self, name: str, line: str) -> None:
        """Write one line of a part's log."""
        order = [part.name for part in self.parts]
        if self._log.isatty() and name in order:
            name_shown = f"\x1b[{COLOURS[order.index(name) % len(COLOURS)]}m{name:<8}\x1b[0m"
        else:
            name_shown = f"{name:<8}"
        with self._lock:
            self._log.write(f"{name_shown} {line.rstrip()}\n")
            self._log.flush()

    def start(self, part: Part) -> Part:
        """Start a part and keep it running."""
        self.parts.append(part)
        self._spawn(part)
        return part

    def start_service(self, service: str) -> str:
        """Start an embedded service and return the address it announces."""
        part = Part(service, ("embedded", service), restart=False)
        self.parts.append(part)
        process = self._popen(part)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise ServiceUnavailable(f"the embedded {service} did not start; its message is above")
        self._follow(part, process)
        return address

    def _popen(self, part: Part) -> "subprocess.Popen[str]":
        part.started_at = time.monotonic()
        self._starting = True
        part.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "headwater", *part.command],
            env={**os.environ, **self.environment, SUPERVISOR: str(os.getpid())},
            stdout=subprocess.PIPE,
            stderr=None if part.command[0] == "embedded" else subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._starting = False
        if self._interrupted:
            raise KeyboardInterrupt
        return part.process

    def _spawn(self, part: Part) -> None:
        self._follow(part, self._popen(part))

    def _follow(self, part: Part, process: "subprocess.Popen[str]") -> None:
        def pump() -> None:
            assert process.stdout is not None
            with process.stdout as lines:
                for line in lines:
                    part.last_line = line.strip() or part.last_line
                    self.say(part.name, line)

        part.log_reader = threading.Thread(target=pump, daemon=True, name=f"log of {part.name}")
        part.log_reader.start()

    def watch(self) -> None:
        """Restart what ended by itself; call it a few times a second.

        Raises:
            ServiceUnavailable: an embedded service ended; its data is lost, so nothing can continue.
            UsageError: a part refused its command line or settings; it would do so again.
        """
        for part in self.parts:
            if part.restart_at is not None:
                if time.monotonic() >= part.restart_at:
                    part.restart_at = None
                    self._spawn(part)
                continue
            code = part.process.poll() if part.process else None
            if code is None:
                continue
            if not part.restart:
                raise ServiceUnavailable(f"the embedded {part.name} ended with exit code {code}")
            if code == USAGE_EXIT:
                if part.log_reader:
                    part.log_reader.join(STOP_GRACE_S)  # until its last line is read
                why = part.last_line.removeprefix("headwater: ") or "it exited without a message"
                raise UsageError(f"`headwater {' '.join(part.command)}` refuses to run: {why}")
            if time.monotonic() - part.started_at > STEADY_S:
                part.backoff_s = FIRST_BACKOFF_S
            self.say(part.name, f"ended with exit code {code}; starting again in {part.backoff_s:g} s")
            part.restart_at = time.monotonic() + part.backoff_s
            part.backoff_s = min(part.backoff_s * 2, MAX_BACKOFF_S)

    def stop(self) -> None:
        """End every part, the last started first; what does not end in time is killed."""
        running = [part.process for part in reversed(self.parts) if part.process and part.process.poll() is None]
        services = {part.process for part in self.parts if not part.restart}
        for group in (
            [each for each in running if each not in services],
            [each for each in running if each in services],
        ):
            for process in group:
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_GRACE_S
            for process in group:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def start_services(supervisor: Supervisor, kafka: str | None, redis: str | None) -> Settings:
    """Start the embedded services that no address is given for, and return the settings to use."""
    if redis is None:
        redis = supervisor.start_service("redis")
    supervisor.environment["HEADWATER_REDIS_URL"] = redis
    if kafka is None:
        kafka = supervisor.start_service("kafka")
        supervisor.environment["HEADWATER_KAFKA_API_VERSION"] = ".".join(map(str, EMBEDDED_API_VERSION))
    supervisor.environment["HEADWATER_KAFKA_BOOTSTRAP_SERVERS"] = kafka
    os.environ.update(supervisor.environment)
    settings = read_settings()
    ensure_topics(settings)
    return settings


def start_parts(supervisor: Supervisor, train_every: str | None, stats_file: Path | None = None) -> None:
    """Start the stream worker, the server and, if it is to refresh every so often, the trainer."""
    counters = ("--stats-file", str(stats_file)) if stats_file else ()
    supervisor.start(Part("stream", ("stream", *counters)))
    supervisor.start(Part("serve", ("serve",)))
    if train_every:
        supervisor.start(Part("train", ("train", "--every", train_every)))


def run_until_signal(supervisor: Supervisor) -> None:
    """Watch over the parts until Ctrl-C or another signal to end."""
    try:
        while True:
            time.sleep(POLL_S)
            supervisor.watch()
    except KeyboardInterrupt:
        return


@contextmanager
def fresh_files() -> Iterator[dict[str, str]]:
    """Yield the settings of a state directory and a model repository that last as long as embedded services do.

    Checkpoints count offsets of the log they were written for, and the trainer prunes bundles that the registry does not list.
    """
    state_dir = read_settings().state_dir
    state_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="up-", dir=state_dir) as directory:
        path = Path(directory).resolve()
        yield {"HEADWATER_STATE_DIR": str(path), "HEADWATER_MODEL_DIR": str(path / "onnx")}


def exports(environment: Mapping[str, str]) -> str:
    """Return the shell command that sets these variables."""
    return shlex.join(["export", *(f"{name}={value}" for name, value in environment.items())])


@click.command()
@click.option("--kafka", metavar="HOST:PORT", help="A real Kafka, together with --redis; embedded when left out.")
@click.option("--redis", metavar="URL", help="A real Redis, together with --kafka; embedded when left out.")
@click.option("--train-every", default="10m", show_default=True, metavar="TIME", help="Time between refreshes.")
@click.option("--no-train", is_flag=True, help="Leave the trainer out.")
def up(kafka: str | None, redis: str | None, train_every: str, no_train: bool) -> None:
    """Run everything on this machine: broker, Redis, stream, server, trainer. Ctrl-C ends all of it.

    With the embedded broker and Redis nothing is kept: files are in a directory of their own, which goes at the end.
    """
    if (kafka is None) != (redis is None):
        raise UsageError(
            "give both --kafka and --redis, or neither: Redis records which Kafka offsets are applied; with a different "
            "Kafka, new engagements would be skipped"
        )
    if not no_train:
        parse_duration("--train-every", train_every)  # before anything starts
    with ExitStack() as running:
        environment = {} if kafka else running.enter_context(fresh_files())
        supervisor = running.enter_context(Supervisor(environment))
        settings = start_services(supervisor, kafka, redis)
        supervisor.say("up", f"Kafka {settings.kafka_bootstrap_servers}, server {settings.serving_url}; Ctrl-C ends")
        if supervisor.environment:
            supervisor.say("up", f"in another shell, for other commands: {exports(supervisor.environment)}")
        start_parts(supervisor, None if no_train else train_every)
        run_until_signal(supervisor)

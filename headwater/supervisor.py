"""`headwater up`: every part of Headwater on one machine, under one roof."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click

from headwater.embedded import BROKER_API_VERSION
from headwater.errors import ServiceUnavailable
from headwater.settings import Settings, read_settings
from headwater.topics import ensure_topics

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STEADY_S = 60.0
STOP_GRACE_S = 15.0
POLL_S = 0.2
COLOURS = (36, 32, 33, 35, 34, 31)


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


class Supervisor:
    """Starts parts, prefixes their output with their name, restarts what crashes, ends all together.

    Args:
        environment: What every part gets on top of this process's environment.
        log: Where the parts' output goes; a terminal gets colours.
    """

    def __init__(self, environment: Mapping[str, str], log: IO[str] = sys.stderr) -> None:
        self.environment = dict(environment)
        self.parts: list[Part] = []
        self._log = log
        self._lock = threading.Lock()

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
            self.stop()
            raise ServiceUnavailable(f"the embedded {service} did not start; its message is above")
        self._follow(part, process)
        return address

    def _popen(self, part: Part) -> "subprocess.Popen[str]":
        part.started_at = time.monotonic()
        part.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "headwater", *part.command],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=None if part.command[0] == "embedded" else subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        return part.process

    def _spawn(self, part: Part) -> None:
        self._follow(part, self._popen(part))

    def _follow(self, part: Part, process: "subprocess.Popen[str]") -> None:
        def pump() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                self.say(part.name, line)

        threading.Thread(target=pump, daemon=True, name=f"log of {part.name}").start()

    def watch(self) -> None:
        """Restart what ended by itself; call it a few times a second.

        Raises:
            ServiceUnavailable: an embedded service ended; its data is gone and nothing can go on.
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
        supervisor.environment["HEADWATER_KAFKA_API_VERSION"] = BROKER_API_VERSION
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
    """Watch over the parts until Ctrl-C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(POLL_S):
        supervisor.watch()


@click.command()
@click.option("--kafka", metavar="HOST:PORT", help="A real Kafka; embedded when left out.")
@click.option("--redis", metavar="URL", help="A real Redis; embedded when left out.")
@click.option("--train-every", default="10m", show_default=True, metavar="TIME", help="Time between refreshes.")
@click.option("--no-train", is_flag=True, help="Leave the trainer out.")
def up(kafka: str | None, redis: str | None, train_every: str, no_train: bool) -> None:
    """Run everything on this machine: broker, Redis, stream, server, trainer. Ctrl-C ends all of it."""
    supervisor = Supervisor({})
    try:
        settings = start_services(supervisor, kafka, redis)
        supervisor.say("up", f"Kafka {settings.kafka_bootstrap_servers}, server {settings.serving_url}; Ctrl-C ends")
        start_parts(supervisor, None if no_train else train_every)
        run_until_signal(supervisor)
    finally:
        supervisor.stop()

"""Headwater's own processes, as an operator runs them."""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from kafka import KafkaConsumer

from headwater.settings import Settings
from tests.services import KafkaService, RedisService, free_port, poll


def settings_of(kafka: KafkaService, redis: RedisService, directory: Path, **changes: object) -> Settings:
    """Return settings of an installation on these services, with its files in a directory."""
    return Settings.model_validate(
        {
            "kafka_bootstrap_servers": kafka.bootstrap_servers,
            "redis_url": redis.url,
            "model_dir": directory / "onnx",
            "state_dir": directory / "var",
            **changes,
        }
    )


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment that gives a process these settings."""
    return {
        **os.environ,
        "HEADWATER_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "HEADWATER_REDIS_URL": settings.redis_url.get_secret_value(),
        "HEADWATER_NAMESPACE": settings.namespace,
        "HEADWATER_MODEL_DIR": str(settings.model_dir),
        "HEADWATER_STATE_DIR": str(settings.state_dir),
        "HEADWATER_CLOCK": settings.clock,
        "HEADWATER_SERVING_PORT": str(settings.serving_port),
        "HEADWATER_SERVING_URL": settings.serving_url,
        "HEADWATER_SERVING_MAX_CONCURRENCY": str(settings.serving_max_concurrency),
        "HEADWATER_SNAPSHOT_EVERY_S": str(settings.snapshot_every_s),
        "PYTHONWARNINGS": "ignore",
    }


def headwater(settings: Settings, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "headwater", *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Process:
    """A long-running command; its output is kept in a file."""

    def __init__(self, settings: Settings, *arguments: str) -> None:
        self.settings = settings
        self.arguments = arguments
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        self.log = settings.state_dir / f"{arguments[0]}-{free_port()}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headwater", *self.arguments],
                env=environment(self.settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def kill(self) -> None:
        """End it as a power cut would."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(30)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.kill()
        if error is not None:
            print(f"--- {self.arguments}\n{self.output()[-4000:]}")


class Server(Process):
    """`headwater serve`; entered once it answers."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "serve")

    def start(self) -> Self:
        super().start()
        poll(self._answers, 60, "the server answers")
        return self

    def _answers(self) -> bool:
        assert self.running, self.output()
        try:
            return self.get("/health/live").status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, path: str, **params: Any) -> httpx.Response:
        return httpx.get(f"{self.settings.serving_url}{path}", params=params, timeout=30)

    def wait_ready(self) -> None:
        poll(lambda: self.get("/health/ready").status_code == 200, 60, "the server is ready")


def with_server_port(settings: Settings) -> Settings:
    """Return the settings with a free port to serve on."""
    port = free_port()
    return settings.model_copy(update={"serving_port": port, "serving_url": f"http://127.0.0.1:{port}"})


def stats_file(settings: Settings, name: str = "stream") -> Path:
    """Return where a stream worker is told to write its counters."""
    return settings.state_dir / f"{name}.json"


def records_of(settings: Settings, name: str, count: int | None = None, wait_s: float = 3.0) -> list[Any]:
    """Return a topic's records, the first `count` of them or all until none came for `wait_s`."""
    consumer = KafkaConsumer(
        settings.names.topic(name),
        bootstrap_servers=settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=1000 * wait_s,
    )
    try:
        return list(islice(consumer, count))
    finally:
        consumer.close()

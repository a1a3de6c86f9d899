"""Real Kafka and redis-server as subprocesses, each on a free port with its own data."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka import KafkaConsumer
from redis import Redis

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 60.0
INSTRUCTION = "run `make setup-services`, or pytest with --without-services"


def free_port(span: int = 1) -> int:
    """Return the first of `span` neighbouring free TCP ports."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if all(_is_free(port + offset) for offset in range(span)):
            return port


def _is_free(port: int) -> bool:
    """Say whether nobody has the port, neither to listen nor for a connection of its own."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True


def _listens(port: int) -> bool:
    """Say whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def poll(condition: Callable[[], object], timeout_s: float = 30.0, what: str = "condition") -> None:
    """Return when `condition` is true; fail naming `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout_s:g} s")
        time.sleep(0.02)


class Service:
    """A subprocess that can be stopped, killed and started again on the same port and data."""

    name = "service"

    def __init__(self, port: int) -> None:
        self.port = port
        self.data = Path(tempfile.mkdtemp(prefix=f"headwater-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        log = (self.data / "output.log").open("ab")
        self._process = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        log.close()
        try:
            poll(self.answers, START_TIMEOUT_S, f"{self.name} answers")
        except AssertionError:
            tail = (self.data / "output.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} did not start ({INSTRUCTION}):\n{tail}") from None

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


class KafkaService(Service):
    """One KRaft node."""

    name = "kafka"

    def __init__(self) -> None:
        super().__init__(free_port(2))

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return ["bash", str(ROOT / "deploy/kafka/start.sh"), str(self.port), str(self.data)]

    def answers(self) -> bool:
        if not _listens(self.port):
            return False
        try:
            KafkaConsumer(bootstrap_servers=self.bootstrap_servers).close()
        except Exception:
            return False
        return True


class RedisService(Service):
    """One redis-server that survives a kill: every write is on disk."""

    name = "redis"

    def __init__(self) -> None:
        super().__init__(free_port())

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError(f"redis-server is not installed: {INSTRUCTION}")
        options = ["--port", str(self.port), "--dir", str(self.data), "--bind", "127.0.0.1"]
        return [program, *options, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]

    def answers(self) -> bool:
        try:
            with Redis.from_url(self.url) as client:
                return bool(client.ping())
        except Exception:
            return False

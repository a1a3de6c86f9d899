"""Queries from a thread, to see that nothing fails while generations change."""

import threading
import time
from collections import Counter
from itertools import cycle

from headwater.client import HeadwaterClient
from headwater.errors import HeadwaterError, ServiceUnavailable

SWAP_TIMEOUT_S = 120.0


class QueryLoad:
    """Queries the server from a thread and keeps count; a context manager."""

    def __init__(self, url: str, users: list[str], topics: list[str]) -> None:
        self._url, self._users, self._topics = url, users, topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.versions: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.failed = 0
        self.mixed = 0

    def _run(self) -> None:
        pairs = zip(cycle(self._users), cycle(self._topics), strict=False)
        with HeadwaterClient(self._url) as client:
            while not self._stop.is_set():
                user_id, topic = next(pairs)
                started = time.perf_counter()
                try:
                    answer = client.candidates(user_id, topic, k=20)
                except HeadwaterError:
                    self.failed += 1
                    continue
                self.latencies_ms.append((time.perf_counter() - started) * 1000)
                self.versions[answer.bundle_version] += 1
                self.mixed += answer.generation != answer.bundle_version

    def wait_for(self, version: str) -> None:
        """Return when an answer named `version`."""
        deadline = time.monotonic() + SWAP_TIMEOUT_S
        while not self.versions[version]:
            if time.monotonic() > deadline:
                raise ServiceUnavailable(f"no answer names {version}")
            time.sleep(0.05)

    def __enter__(self) -> "QueryLoad":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

"""The collector tells each request the truth about its own events."""

import asyncio
import threading
from typing import cast

import pytest

from headwater.errors import DeliveryFailed, ServiceUnavailable
from headwater.producer import EngagementProducer
from serving import collector
from serving.collector import Collector


class SlowProducer:
    """Counts failures of a flush, as the real one does, and fails what it is told to."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.flushed: list[list[str]] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.failing: set[str] = set()

    def send(self, name: str) -> None:
        self.threads.add(threading.get_ident())
        self.sent.append(name)

    def flush(self) -> None:
        assert self.go.wait(5)
        batch, self.sent = self.sent, []
        self.flushed.append(batch)
        if self.failing & set(batch):
            raise DeliveryFailed("1 events were not acknowledged")


def append(slow: SlowProducer, events: Collector, name: str) -> "asyncio.Task[None]":
    return asyncio.create_task(events.append([lambda: slow.send(name)]))


def made(timeout_s: float = 5) -> tuple[SlowProducer, Collector]:
    slow = SlowProducer()
    return slow, Collector(cast(EngagementProducer, slow), timeout_s)


async def test_requests_that_wait_share_the_next_flush() -> None:
    slow, events = made()
    tasks = [append(slow, events, "first")]
    await asyncio.sleep(0.01)
    tasks += [append(slow, events, name) for name in ("second", "third")]
    await asyncio.sleep(0.01)
    slow.go.set()
    await asyncio.gather(*tasks)
    assert slow.flushed == [["first"], ["second", "third"]]
    assert threading.get_ident() not in slow.threads, "a slow broker must not hold up queries"


async def test_no_request_is_told_that_lost_events_are_safe() -> None:
    slow, events = made()
    slow.failing = {"lost"}
    first = append(slow, events, "first")
    await asyncio.sleep(0.01)
    lost, neighbour = append(slow, events, "lost"), append(slow, events, "neighbour")
    await asyncio.sleep(0.01)
    slow.go.set()
    outcomes = await asyncio.gather(first, lost, neighbour, return_exceptions=True)
    assert outcomes[0] is None
    assert isinstance(outcomes[1], DeliveryFailed)
    assert isinstance(outcomes[2], DeliveryFailed), "sending it again does no harm"
    await append(slow, events, "later")


async def test_waiting_is_bounded_in_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MAX_WAITING", 1)
    slow, events = made(timeout_s=0.1)
    first = append(slow, events, "first")
    await asyncio.sleep(0.01)
    second = append(slow, events, "second")
    await asyncio.sleep(0.01)
    with pytest.raises(ServiceUnavailable):
        await events.append([])
    with pytest.raises(DeliveryFailed, match="send it again"):
        await first
    with pytest.raises(DeliveryFailed):
        await second
    slow.go.set()

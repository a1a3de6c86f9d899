"""What makes a batch, and what becomes of one that nobody foresaw."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from streams.batches import attach
from streams.record import Record


class App:
    """Stands in for Faust's: keeps the agent, and why it crashed."""

    def __init__(self) -> None:
        self.agents: list[Callable[[Any], Any]] = []
        self.reason: BaseException | None = None

    def topic(self, name: str, **types: type) -> str:
        return name

    def agent(self, topic: str, name: str) -> Callable[[Callable[[Any], Any]], None]:
        return self.agents.append

    async def crash(self, reason: BaseException) -> None:
        self.reason = reason


class Stream:
    """Messages of one record each; `acked` are their offsets."""

    def __init__(self, count: int) -> None:
        self.acked: list[int] = []
        self._count = count

    def noack(self) -> "Stream":
        return self

    async def events(self) -> AsyncIterator[Any]:
        for offset in range(self._count):
            await asyncio.sleep(0)  # as Faust hands over one message after the other
            fetched = SimpleNamespace(
                topic="t", partition=0, offset=offset, key=None, value=b"", headers=(), timestamp=0
            )
            yield SimpleNamespace(value=[fetched], ack=lambda offset=offset: self.acked.append(offset))


async def test_a_fault_nobody_foresaw_crashes_the_app_and_acknowledges_nothing() -> None:
    app, stream = App(), Stream(3)

    async def apply(records: list[Record]) -> None:
        raise AttributeError("a fault")

    attach(app, "t", apply)  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup):
        await app.agents[0](stream)
    assert app.reason is not None
    assert stream.acked == []


async def test_messages_that_are_handed_over_together_are_one_batch() -> None:
    app, stream, batches = App(), Stream(4), list[list[int]]()

    async def apply(records: list[Record]) -> None:
        batches.append([record.offset for record in records])

    attach(app, "t", apply)  # type: ignore[arg-type]
    agent = asyncio.ensure_future(app.agents[0](stream))
    while not stream.acked:
        await asyncio.sleep(0.001)
    agent.cancel()
    assert batches == [[0, 1, 2, 3]]
    assert stream.acked == [0, 1, 2, 3]


async def test_a_batch_is_acknowledged_once_told_while_the_next_one_is_applied() -> None:
    app, stream = App(), Stream(3)
    applied, told, may_tell = list[int](), list[int](), asyncio.Event()

    async def tell(offsets: list[int]) -> None:
        await may_tell.wait()
        told.extend(offsets)

    async def apply(records: list[Record]) -> Callable[[], Any]:
        offsets = [record.offset for record in records]
        applied.extend(offsets)
        return partial(tell, offsets)

    attach(app, "t", apply, at_once=1)  # type: ignore[arg-type]
    agent = asyncio.ensure_future(app.agents[0](stream))
    while len(applied) < 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert (applied, told, stream.acked) == ([0, 1], [], [])  # one is told at a time
    may_tell.set()
    while len(stream.acked) < 3:
        await asyncio.sleep(0.001)
    agent.cancel()
    assert applied == told == stream.acked == [0, 1, 2]


async def test_nothing_is_acknowledged_of_which_telling_fails() -> None:
    app, stream = App(), Stream(1)

    async def tell() -> None:
        raise AttributeError("a fault")

    async def apply(records: list[Record]) -> Callable[[], Any]:
        return tell

    attach(app, "t", apply)  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup):
        await app.agents[0](stream)
    assert app.reason is not None
    assert stream.acked == []

"""Queries go first, but not for ever."""

import asyncio
import time

from serving.in_flight import InFlight

LONG_S = 5.0


async def test_who_lets_queries_go_first_waits_until_the_last_is_answered() -> None:
    in_flight, begun = InFlight(), time.monotonic()
    await in_flight.go_first(LONG_S)
    with in_flight:
        with in_flight:
            waiting = asyncio.ensure_future(in_flight.go_first(LONG_S))
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert in_flight.count == 1
        assert not waiting.done()
    await waiting
    assert in_flight.count == 0
    assert time.monotonic() - begun < LONG_S


async def test_patience_ends() -> None:
    in_flight = InFlight()
    with in_flight:
        await in_flight.go_first(0.01)
        assert in_flight.count == 1

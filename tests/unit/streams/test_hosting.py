"""Faust apps that end by themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from streams import hosting


async def test_an_app_that_runs_aside_is_started_anew_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    apps: list[Any] = []
    started, faults = asyncio.Queue[Any](), [OSError("disk full")]

    def make() -> Any:
        if apps and faults:
            raise faults.pop()
        conf = SimpleNamespace(id=f"app-{len(apps)}")
        apps.append(SimpleNamespace(crashed=False, crash_reason=ValueError("why"), should_stop=False, conf=conf))
        return apps[-1]

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[Any]:
        started.put_nowait(app)
        yield app

    monkeypatch.setattr(hosting, "running", running)
    monkeypatch.setattr(hosting, "RESTART_S", 0.0)
    async with hosting.running_with_restarts(make) as is_alive:
        assert await started.get() is apps[0]
        assert is_alive()
        apps[0].crashed = True
        assert not is_alive()
        assert await started.get() is apps[0], "there is no other one yet"
        assert await started.get() is apps[1]
        assert is_alive()

"""`headwater stream` ends when it is told to, whatever it waits for."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headwater.settings import Settings
from streams import cli
from streams.report import Report


async def test_a_worker_that_is_still_starting_ends_when_told_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starting = asyncio.Event()

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[Any]:
        starting.set()
        await asyncio.Event().wait()
        yield app

    monkeypatch.setattr(cli, "running", running)
    monkeypatch.setattr(cli, "make_worker", lambda *given: None)
    stats = tmp_path / "stats.json"
    work = asyncio.create_task(cli._run(Settings(), Report(), stats))
    await starting.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(work, 5)
    assert stats.is_file()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)

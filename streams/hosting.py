"""Running a Faust app inside this process's event loop."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import faust
from faust.contrib.asgi import faust_app_running

STOP_TIMEOUT_S = 10.0
RESTART_S = 5.0
COLLECT_AFTER = 50_000
"""Objects until Python looks for cycles, for `gc.set_threshold`: what is decoded dies young and has none."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(app: faust.App) -> AsyncIterator[faust.App]:
    """Start the app on entry and stop it on exit; agents finish their batch."""
    async with faust_app_running(app, discover=False, stop_timeout=STOP_TIMEOUT_S):
        yield app


@asynccontextmanager
async def running_aside(make: Callable[[], faust.App]) -> AsyncIterator[Callable[[], bool]]:
    """Start an app on entry without waiting until it has joined its group, another one when it ends by itself; stop on exit.

    Yields:
        What says whether it runs.
    """
    app = make()

    async def run() -> None:
        nonlocal app
        while True:
            try:
                async with running(app):
                    reason = await crashed(app)
                log.error("%s has ended, and is started anew: %s %s", app.conf.id, type(reason).__name__, reason)
            except Exception:
                log.exception("%s has ended, and is started anew", app.conf.id)
            await asyncio.sleep(RESTART_S)
            app = make()

    task = asyncio.create_task(run())
    try:
        yield lambda: alive(app)
    finally:
        task.cancel()
        await asyncio.wait([task])


def alive(app: faust.App) -> bool:
    """Say whether the app has neither crashed nor stopped."""
    return not (app.crashed or app.should_stop)


async def crashed(app: faust.App) -> BaseException:
    """Return the reason when the app ends by itself."""
    while alive(app):
        await asyncio.sleep(0.2)
    return app.crash_reason or RuntimeError("the Faust app stopped")


async def end_process_with(app: faust.App) -> None:
    """Ask this process to stop when the app ends by itself, so that whoever watches over it starts it anew."""
    reason = await crashed(app)
    log.critical("%s has ended: %s %s", app.conf.id, type(reason).__name__, reason)
    os.kill(os.getpid(), signal.SIGTERM)

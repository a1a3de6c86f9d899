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
"""For `gc.set_threshold`: collect cycles rarely, since decoded records are short-lived and have none."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(app: faust.App) -> AsyncIterator[faust.App]:
    """Start the app on entry and stop it on exit; agents finish their batch."""
    async with faust_app_running(app, discover=False, stop_timeout=STOP_TIMEOUT_S):
        yield app


@asynccontextmanager
async def running_with_restarts(make: Callable[[], faust.App]) -> AsyncIterator[Callable[[], bool]]:
    """Run an app in the background, replacing it with a new one whenever it ends by itself; stop it on exit.

    Unlike `running` it does not wait until the app has joined its consumer group.

    Args:
        make: Returns a new app.

    Yields:
        A function that says whether the app is running.
    """
    app = make()

    async def run() -> None:
        nonlocal app
        while True:
            try:
                async with running(app):
                    reason = await wait_until_ended(app)
                log.error("%s has ended and will be restarted: %s %s", app.conf.id, type(reason).__name__, reason)
            except Exception:
                log.exception("%s has ended and will be restarted", app.conf.id)
            await asyncio.sleep(RESTART_S)
            try:
                app = make()
            except Exception:
                log.exception("%s cannot be made again yet", app.conf.id)

    task = asyncio.create_task(run())
    try:
        yield lambda: alive(app)
    finally:
        task.cancel()
        await asyncio.wait([task])


def alive(app: faust.App) -> bool:
    """Return whether the app has neither crashed nor stopped."""
    return not (app.crashed or app.should_stop)


async def wait_until_ended(app: faust.App) -> BaseException:
    """Wait until the app ends by itself, and return why."""
    while alive(app):
        await asyncio.sleep(0.2)
    return app.crash_reason or RuntimeError("the Faust app stopped")


async def end_process_with(app: faust.App) -> None:
    """Ask this process to stop when the app ends by itself, so that its supervisor restarts it."""
    reason = await wait_until_ended(app)
    log.critical("%s has ended: %s %s", app.conf.id, type(reason).__name__, reason)
    os.kill(os.getpid(), signal.SIGTERM)

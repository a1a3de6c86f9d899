"""Running a Faust app inside this process's event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import faust
from faust.contrib.asgi import faust_app_running

STOP_TIMEOUT_S = 10.0


@asynccontextmanager
async def running(app: faust.App) -> AsyncIterator[faust.App]:
    """Start the app on entry and stop it on exit; agents finish their batch."""
    async with faust_app_running(app, discover=False, stop_timeout=STOP_TIMEOUT_S):
        yield app


async def crashed(app: faust.App) -> BaseException:
    """Return the reason when the app ends by itself."""
    while not app.crashed and not app.should_stop:
        await asyncio.sleep(0.2)
    return app.crash_reason or RuntimeError("the Faust app stopped")

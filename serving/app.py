"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from headwater import __version__
from headwater.settings import Settings
from serving.collector import Collector
from serving.faults import FAULTS, install_faults
from serving.limits import Limits
from serving.routes import candidates, collector, generations, health, inspection, page
from serving.state import running_state


def make_app(settings: Settings) -> ASGIApp:
    """Return the server's application; its lifespan follows Kafka in the same event loop.

    Args:
        settings: The installation.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_state(settings) as state:
            app.state.headwater = state
            app.state.collector = Collector(state.producer)
            yield

    app = FastAPIOffline(
        title="Headwater",
        version=__version__,
        description="Which items of a topic should a user be notified about, now?",
        lifespan=lifespan,
        responses=FAULTS,
    )
    install_faults(app)
    for module in (candidates, collector, inspection, generations, health, page):
        app.include_router(module.router)
    return Limits(candidates.SingleQueries(app, app.state), app.state)

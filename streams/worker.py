"""A stream worker: which agent reads which topic, and the tasks beside them."""

import asyncio
import logging
import os
import socket
import time
from functools import partial
from pathlib import Path

import faust
from redis import Redis as SyncRedis
from redis import RedisError

from headwater.generations import Generations
from headwater.intake import latest_ms
from headwater.names import DELIVERIES, ENGAGEMENTS, ITEMS
from headwater.settings import Settings
from headwater.stores import RedisFeatureStore
from streams.app import make_app
from streams.batches import attach
from streams.deliveries import DeliveryFold
from streams.embedder import Embedder
from streams.engagements import EngagementFold
from streams.items import ItemIntake
from streams.publisher import FaustPublisher, PublishFailed
from streams.rebuild import Rebuild
from streams.report import Report

REFRESH_S = 1.0
LOG_EVERY_S = 10.0

log = logging.getLogger(__name__)


def make_worker(settings: Settings, report: Report, stats_file: Path | None = None) -> faust.App:
    """Return the Faust app of a stream worker.

    Args:
        settings: The installation.
        report: Gets the counters.
        stats_file: Where to write the report as JSON, four times a second.
    """
    app = make_app(settings, settings.names.stream_group())
    store = RedisFeatureStore.of(settings)
    publisher = FaustPublisher(app, settings.names)
    generations = Generations(SyncRedis.from_url(settings.redis_url.get_secret_value()), settings.names)
    embedder = Embedder(generations, settings.model_dir)
    latest = partial(latest_ms, settings)
    engagements = EngagementFold(store, publisher, report, latest)
    items = ItemIntake(store, publisher, report, embedder, latest)
    deliveries = DeliveryFold(store, publisher, report)
    rebuild = Rebuild(f"{socket.gethostname()}-{os.getpid()}", store, publisher, embedder)

    for name, apply in ((ENGAGEMENTS, engagements.apply), (ITEMS, items.apply), (DELIVERIES, deliveries.apply)):
        attach(app, settings.names.topic(name), apply)

    @app.task
    async def maintain_generations() -> None:
        await _maintain_generations(app, embedder, rebuild, items)

    @app.task
    async def follow_registry() -> None:
        await _follow_registry(app, embedder)

    @app.task
    async def report_progress() -> None:
        await _report_progress(app, report, stats_file)

    return app


async def _maintain_generations(app: faust.App, embedder: Embedder, rebuild: Rebuild, items: ItemIntake) -> None:
    """Build requested generations, delete pruned ones, and delete the embeddings of expired items."""
    while not app.should_stop:
        try:
            await embedder.refresh()
            await rebuild.run_pending()
            await items.expire()
        except (RedisError, PublishFailed) as error:
            log.warning("generations wait: %s", error)
        await app.sleep(REFRESH_S)


async def _follow_registry(app: faust.App, embedder: Embedder) -> None:
    """Embed new items for new versions soon, even while this worker builds another generation."""
    while not app.should_stop:
        await app.sleep(REFRESH_S)
        try:
            await embedder.refresh()
        except RedisError as error:
            log.debug("the generation registry cannot be read: %s", error)


async def _report_progress(app: faust.App, report: Report, stats_file: Path | None) -> None:
    """Write the counters to the file, and log them when they have changed."""
    logged, logged_at_s, problem = "", time.monotonic(), ""
    while not app.should_stop:
        await app.sleep(REFRESH_S / 4)
        try:
            if stats_file is not None:
                await asyncio.to_thread(report.write, stats_file)
            problem = ""
        except OSError as error:
            if str(error) != problem:
                log.warning("the counters cannot be written: %s", error)
            problem = str(error)
        if time.monotonic() - logged_at_s >= LOG_EVERY_S and report.line() != logged:
            logged, logged_at_s = report.line(), time.monotonic()
            log.info(logged)

"""`headwater stream`: run a stream worker."""

import asyncio
import gc
import logging
import os
import signal
from pathlib import Path

import click

from headwater.errors import ServiceUnavailable
from headwater.logs import set_up_logging
from headwater.reachable import redis_reachable
from headwater.settings import Settings, read_settings
from headwater.topics import ensure_topics
from streams.hosting import COLLECT_AFTER, STOP_TIMEOUT_S, running, wait_until_ended
from streams.report import Report
from streams.worker import make_worker

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--stats-file", type=click.Path(path_type=Path), help="Write the counters here as JSON, four times a second."
)
def stream(stats_file: Path | None) -> None:
    """Run a stream worker; start several to share the partitions."""
    settings = read_settings()
    set_up_logging(settings)
    gc.set_threshold(COLLECT_AFTER)
    with redis_reachable(settings) as check:
        check()
    ensure_topics(settings)
    report = Report()
    if stats_file is not None:
        report.write(stats_file)
    asyncio.run(_run(settings, report, stats_file))
    log.info("stopped; %s", report.line())


async def _run(settings: Settings, report: Report, stats_file: Path | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = make_worker(settings, report, stats_file)

    async def run() -> BaseException:
        async with running(app):
            log.info("stream worker runs in group %s", app.conf.id)
            return await wait_until_ended(app)

    work, stopping = asyncio.create_task(run()), asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait({work}, timeout=2 * STOP_TIMEOUT_S)
    if not work.done():  # Faust still waits for a Kafka that is gone, and nothing has been read
        log.error("the stream worker did not stop in time")
        logging.shutdown()
        os._exit(1)
    if stats_file is not None:
        report.write(stats_file)
    if not work.cancelled():
        reason = work.exception() or work.result()
        raise ServiceUnavailable(f"the stream worker crashed: {type(reason).__name__} {reason}")

"""`headwater serve`: run a server."""

import gc
import socket

import click
import uvicorn

from headwater.errors import ServiceUnavailable, UsageError
from headwater.logs import set_up_logging
from headwater.reachable import redis_reachable
from headwater.settings import read_settings
from headwater.topics import ensure_topics
from serving.app import make_app
from serving.protocol import BufferedProtocol
from streams.hosting import COLLECT_AFTER

STOP_TIMEOUT_S = 10


@click.command()
@click.option("--host", help="Overrides HEADWATER_SERVING_HOST.")
@click.option("--port", type=click.IntRange(1, 65535), help="Overrides HEADWATER_SERVING_PORT.")
def serve(host: str | None, port: int | None) -> None:
    """Run a server: follow the index, answer queries."""
    settings = read_settings()
    if host or port:
        settings = settings.model_copy(
            update={"serving_host": host or settings.serving_host, "serving_port": port or settings.serving_port}
        )
    set_up_logging(settings)
    gc.set_threshold(COLLECT_AFTER)
    with redis_reachable(settings) as check:
        check()
    ensure_topics(settings)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    listening = _listen(settings.serving_host, settings.serving_port)
    config = uvicorn.Config(
        make_app(settings),
        http=BufferedProtocol,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
    click.echo(f"serving on http://{settings.serving_host}:{listening.getsockname()[1]}", err=True)
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    if not server.started:
        raise ServiceUnavailable("the server did not start; the reason is above")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        where = f"{host}:{port}: {error.strerror}; choose another --port or HEADWATER_SERVING_PORT"
        raise UsageError(f"cannot listen on {where}") from None

"""`headwater doctor`: check everything that this installation needs."""

import json
from collections.abc import Callable

import click
import httpx

from headwater.bundle import Bundle, bundle_versions, read_manifest
from headwater.cli import EXTRAS, is_installed
from headwater.consumers import consuming
from headwater.errors import HeadwaterError, ServiceUnavailable
from headwater.names import TOPICS
from headwater.reachable import redis_reachable
from headwater.rotation import Rotation
from headwater.settings import Settings, read_settings
from headwater.topics import ensure_topics


def check_redis(settings: Settings) -> str:
    """Return that Redis answers, or raise `ServiceUnavailable`."""
    with redis_reachable(settings) as ping:
        ping()
    return "answers"


def check_kafka(settings: Settings) -> str:
    """Return how many topics there are, or raise `ServiceUnavailable` that names missing ones."""
    with consuming(settings) as consumer:
        present = consumer.topics()
    missing = [name for name in map(settings.names.topic, TOPICS) if name not in present]
    if missing:
        raise ServiceUnavailable(f"topics missing: {', '.join(missing)}; run `headwater doctor --create-topics`")
    return f"{len(TOPICS)} topics"


def check_bundles(settings: Settings) -> str:
    """Return how many bundles there are, or raise `BundleError` if the live or the previous one could not be served."""
    versions = list(bundle_versions(settings.model_dir))
    with redis_reachable(settings):
        alias = Rotation(settings).generations.alias()
    check = Bundle.load if is_installed("onnxruntime") else read_manifest
    for version in filter(None, (alias.version, alias.previous)):
        check(settings.model_dir / version)
    if not versions:
        return f"no bundles in {settings.model_dir} yet: `headwater train --once` makes the first"
    return f"{len(versions)} bundles, newest {versions[-1]}, live {alias.version or 'none'}"


def check_server(settings: Settings) -> str:
    """Return what the server's readiness says, or raise `ServiceUnavailable`."""
    try:
        response = httpx.get(f"{settings.serving_url}/health/ready", timeout=3)
    except httpx.HTTPError as error:
        raise ServiceUnavailable(f"no server at {settings.serving_url}: {error}") from None
    if response.status_code != 200:
        raise ServiceUnavailable(f"not ready: {response.text}")
    return "ready"


CHECKS: dict[str, Callable[[Settings], str]] = {
    "kafka": check_kafka,
    "redis": check_redis,
    "model repository": check_bundles,
    "server": check_server,
}


@click.command()
@click.option("--create-topics", is_flag=True, help="Create missing Kafka topics first.")
@click.option("--create-topics-only", is_flag=True, help="Create missing Kafka topics, check nothing.")
@click.option("--partitions", type=click.IntRange(1, 1024), default=4, show_default=True, help="For new topics.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(create_topics: bool, create_topics_only: bool, partitions: int, as_json: bool) -> None:
    """Check Kafka, Redis, the model repository and the server; exit 1 when a check fails."""
    settings = read_settings()
    if create_topics or create_topics_only:
        ensure_topics(settings, partitions)
    if create_topics_only:
        return
    rows = [
        {"check": f"extra [{extra}]", "ok": True, "detail": "installed" if is_installed(name) else "not installed"}
        for extra, name in EXTRAS.items()
    ]
    for name, check in CHECKS.items():
        try:
            rows.append({"check": name, "ok": True, "detail": check(settings)})
        except HeadwaterError as error:
            rows.append({"check": name, "ok": False, "detail": str(error)})
    if as_json:
        click.echo(json.dumps({"checks": rows}))
    else:
        for row in rows:
            click.echo(f"{'ok  ' if row['ok'] else 'FAIL'}  {row['check']:<18}{row['detail']}")
    if not all(row["ok"] for row in rows):
        raise SystemExit(1)

"""A second index generation under queries: `python -m benchmarks.swap`.

A server with 100,000 news clicks behind it answers 300 queries a second; meanwhile a copy of the live bundle is built into
a generation, verified and promoted. How fast the server's second index grows stands beside hnswlib's own `add_items` on
the same embeddings, alone on one core.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np

from benchmarks.harness import RUNS, Installation, Load, installed, load, news, own_core, query_paths, record
from benchmarks.items import plain_hnswlib
from headwater.bundle import Bundle, publish_bundle, read_manifest
from headwater.events import Item
from headwater.features import encode_items
from headwater.rotation import Rotation
from headwater.settings import Settings
from tests.services import poll

EVENTS = 100_000
USERS = 10_000
K = 50
CONNECTIONS, QUERIES_PER_S = 16, 300
BEFORE_S, SLICE_S, WARM_S = 20.0, 2.0, 5.0
HELD_S = 120.0
Figures = dict[str, float]


@click.command()
@click.option("--runs", default=RUNS, show_default=True, type=click.IntRange(1))
def main(runs: int) -> None:
    """Measure and keep the figures."""
    data = news()
    end_ms = data.until(EVENTS)
    items = [item for item in data.items if item.published_at < end_ms]
    figures: dict[str, Any] = {"items": len(items), "k": K, "runs": runs}
    with installed() as installation:
        installation.stream_in(data, end_ms)
        first: str = installation.train()["version"]
        bundle = Bundle.load(installation.settings.model_dir / first)
        installation.server.wait_ready()
        paths = query_paths(data.users(USERS), installation.topics(), K)
        with own_core(installation.server):
            load(installation.settings.serving_url, paths, CONNECTIONS, WARM_S)
            versions = [first, *(f"{first}-{run}" for run in range(runs))]
            found = []
            for former, version in pairwise(versions):  # the first is pruned after two more
                _copy(installation.settings.model_dir, former, version)
                found.append(_swapped(installation, paths, version))
    figures |= {name: round(statistics.median(run[name] for run in found), 2) for name in found[0]}
    figures["failed"] = sum(run["failed"] for run in found)
    figures["p99_over_before"] = round(statistics.median(run["p99_ms"] / run["p99_ms_before"] for run in found), 2)
    figures["hnswlib_items_per_s"] = round(statistics.median(_hnswlib(bundle, items) for _ in range(runs)))
    figures["over_hnswlib"] = round(figures["items_per_s"] / figures["hnswlib_items_per_s"], 2)
    click.echo(json.dumps(figures, indent=1))
    record("swap", figures)


def _copy(repository: Path, former: str, version: str) -> None:
    """Publish a bundle once more under another version."""
    staging = repository / ".copied"
    shutil.copytree(repository / former, staging)
    publish_bundle(staging, repository, read_manifest(staging).model_copy(update={"version": version}))


def _swapped(installation: Installation, paths: list[str], version: str) -> Figures:
    url, passed_s = installation.settings.serving_url, time.perf_counter
    begun = passed_s()
    before = _load_while(url, paths, lambda: passed_s() - begun < BEFORE_S)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # in this process it would make the queries late
        rotating = pool.submit(_rotate, installation.settings, version)
        during = _load_while(url, paths, lambda: not rotating.done())
    poll(lambda: installation.server.get("/v1/status").json()["live"] == version, HELD_S, "the server has swapped")
    return {
        "failed": before.failed + during.failed,
        "queries": len(during.latencies_ms),
        "p50_ms_before": before.quantile(0.5),
        "p99_ms_before": before.quantile(0.99),
        "p50_ms": during.quantile(0.5),
        "p99_ms": during.quantile(0.99),
        **rotating.result(),
    }


def _load_while(url: str, paths: list[str], going_on: Callable[[], bool]) -> Load:
    found = Load([], 0, 0.0)
    while going_on():
        part = load(url, paths, CONNECTIONS, SLICE_S, QUERIES_PER_S)
        found.latencies_ms += part.latencies_ms
        found.failed += part.failed
        found.seconds += part.seconds
    return found


def _rotate(settings: Settings, version: str) -> Figures:
    """Build, verify and promote; return how long that took and how fast the generation grew in the server."""
    rotation, started = Rotation(settings), time.perf_counter()
    grown = [(0.0, 0)]  # (seconds, items held)

    def look(*_: int) -> None:
        held: dict[str, int] = server.get("/v1/status").json()["generations"]
        grown.append((time.perf_counter() - started, held.get(version, 0)))

    def complete() -> bool:
        look()
        return grown[-1][1] >= built.embedded

    with httpx.Client(base_url=settings.serving_url, timeout=30) as server:
        built = rotation.build(version, look)
        built_s = time.perf_counter() - started
        poll(complete, HELD_S, "the server holds all items")
        rotation.promote(version)
    promoted_s = time.perf_counter() - started
    begin_s = max(at_s for at_s, items in grown if not items)
    held_s, items = grown[-1]
    rotation.prune()
    return {
        "items_per_s": items / (held_s - begin_s),
        "built_after_s": built_s,
        "held_after_s": held_s,
        "promoted_after_s": promoted_s,
    }


def _hnswlib(bundle: Bundle, items: list[Item]) -> float:
    embeddings = bundle.item_tower.embed(encode_items(items, bundle.vocabulary))
    index = plain_hnswlib(len(embeddings), embeddings.shape[1])
    started = time.perf_counter()
    index.add_items(embeddings, np.arange(len(embeddings)))
    return len(embeddings) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

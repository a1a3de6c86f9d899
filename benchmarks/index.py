"""Exact search against HNSW, recall beside every time: `python -m benchmarks.index`.

Embeddings are clustered, norms unequal; a third of the items share embeddings, as items no bundle has learned yet do.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.harness import record
from headwater.features import STREAMING
from headwater.index import ItemIndex, item_index
from headwater.item_embedding import ItemEmbedding

DIMENSION = 64
CLUSTERS = 300
K = 50
RUNS = 5
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
SLICE = 256
TIE = 1e-4
Embeddings = npt.NDArray[np.float32]


def make_items(count: int, random: np.random.Generator) -> tuple[list[ItemEmbedding], Embeddings]:
    """Return items of Zipf-sized topics `t0`, `t1` … and user embeddings to search with, (200, D + STREAMING)."""
    centres = random.normal(size=(CLUSTERS, DIMENSION))
    share = 1 / np.arange(1, CLUSTERS + 1)
    cluster = random.choice(CLUSTERS, size=count, p=share / share.sum())
    looks = 0.4 * random.normal(size=(count, DIMENSION)) * (random.random((count, 1)) > 1 / 3)
    norms = random.lognormal(0, 0.2, size=(CLUSTERS, 1))[cluster]
    embeddings = ((centres[cluster] + looks) * norms).astype(np.float32)
    ages_ms = random.integers(0, 30 * DAY_MS, size=count)
    items = [
        ItemEmbedding(f"item-{number}", (f"t{cluster[number]}",), NOW_MS - int(ages_ms[number]), embeddings[number])
        for number in range(count)
    ]
    static = centres[random.choice(CLUSTERS, size=200)] + 0.4 * random.normal(size=(200, DIMENSION))
    return items, np.hstack((static, np.zeros((200, STREAMING)))).astype(np.float32)


def built(items: list[ItemEmbedding]) -> tuple[ItemIndex, float]:
    """Return an index of the items and how many it took in a second, in slices as a server inserts them."""
    index, started = ItemIndex(DIMENSION), time.perf_counter()
    for start in range(0, len(items), SLICE):
        index.upsert(items[start : start + SLICE])
    return index, len(items) / (time.perf_counter() - started)


def measured(index: ItemIndex, queries: Embeddings, topic: str | None, exact_limit: int) -> dict[str, float]:
    """Return the median over `RUNS` of a query's time, its p99, and index_recall@K; equal scores count as found."""
    item_index.EXACT_LIMIT = exact_limit
    index.search(queries[:1], K, topic, NOW_MS)
    medians, times_ms, found, wanted = [], list[float](), 0, 0
    matrix = (index.everything if topic is None else index._blocks[topic]).matrix(NOW_MS)
    for run in range(RUNS):
        taken_ms = []
        for query in queries:
            started = time.perf_counter()
            (candidates,) = index.search(query[None, :], K, topic, NOW_MS)
            taken_ms.append((time.perf_counter() - started) * 1000)
            if run == 0:
                expected = min(K, len(matrix))
                bar = np.partition(matrix @ query, -expected)[-expected]
                found += sum(score >= bar - TIE for score in candidates.scores)
                wanted += expected
        medians.append(statistics.median(taken_ms))
        times_ms += taken_ms
    return {
        "ms_median": round(statistics.median(medians), 3),
        "ms_p99": round(float(np.percentile(times_ms, 99)), 3),
        f"index_recall@{K}": round(found / wanted, 4),
    }


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def rows_of(count: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure one size of corpus."""
    items, queries = make_items(count, np.random.default_rng(0))
    before_mb = resident_mb()
    index, inserts = built(items)
    shared = {
        "items": count,
        "nodes": index.graph.nodes,
        "inserts_per_s": round(inserts),
        "index_mb": round(resident_mb() - before_mb),
    }
    sizes = sorted(index.topics().items(), key=lambda entry: -entry[1])
    narrow, broad = sizes[len(sizes) // 2], sizes[0]
    cases = [
        ("everything, exact", None, count + 1, count),
        ("everything, HNSW", None, 0, count),
        ("broad topic, exact", broad[0], 0, broad[1]),
        ("median topic, exact", narrow[0], 0, narrow[1]),
    ]
    rows = []
    for name, topic, limit, size in cases:
        figures = measured(index, queries, topic, limit)
        rows.append({**shared, "search": name, "searched": size, **figures})
        say(f"{count:>9,}  {name:<20} {size:>9,}  " + "  ".join(f"{key} {value:g}" for key, value in figures.items()))
    say(f"{count:>9,}  {shared['inserts_per_s']:,} inserts/s, {shared['nodes']:,} nodes, {shared['index_mb']:,} MB")
    return rows


@click.command()
@click.option("--items", "sizes", type=click.IntRange(1000), multiple=True, default=(10_000, 50_000), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(sizes: tuple[int, ...], as_json: bool) -> None:
    """Time searches on one core and write what was measured."""
    rows = [row for size in sizes for row in rows_of(size, lambda line: click.echo(line, err=as_json))]
    document = {"k": K, "runs": RUNS, "rows": rows}
    record("index", "python -m benchmarks.index", document)
    if as_json:
        click.echo(json.dumps(document))


if __name__ == "__main__":
    main()

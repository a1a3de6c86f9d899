"""Recall, memory and speed of graphs whose items come and go: `python -m benchmarks.churn`.

The shape of the streaming runbooks of big-ann-benchmarks: deletes and inserts follow clusters, and what is live drifts.
No two embeddings are equal, and all items were published long ago, so that Headwater finds them by its graph and by the
topics that promise most, never by exact search of everything.
"""

import gc
import importlib
import json
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

import click
import numpy as np
import numpy.typing as npt

from benchmarks.harness import record
from benchmarks.items import DIMENSION, NOW_MS, SLICE, TIE, plain_hnswlib, resident_mb
from benchmarks.search import alone, library_of
from headwater.durations import DAY_MS
from headwater.features import STREAMING
from headwater.index import ItemIndex, item_index
from headwater.index.graph_nodes import EF_CONSTRUCTION, MIN_EF, NEIGHBOURS
from headwater.item_embedding import ItemEmbedding

CLUSTERS = 100
STEPS = 10
"""In a turnover, which replaces as many items as there are."""
UPDATED = 0.02
DRIFT = 0.1
QUERIES = 100
K = 10
PROBES = 16

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Row = dict[str, Any]


class Batch(NamedTuple):
    """Items: numbers (B,), clusters (B,), embeddings (B, DIMENSION)."""

    numbers: Ints
    clusters: Ints
    embeddings: Floats


class Step(NamedTuple):
    """What happens between two measurements, in this order."""

    deleted: Ints
    inserted: Batch
    updated: Batch


class Runbook:
    """The same steps for every system, and what is live: the truth that answers are held to."""

    def __init__(self, count: int) -> None:
        self.random = np.random.default_rng(0)
        self.centres = self.random.normal(size=(CLUSTERS, DIMENSION))
        self.norms = self.random.lognormal(0, 0.2, size=CLUSTERS)
        numbers, clusters = np.arange(count), self.random.integers(CLUSTERS, size=count)
        self.live = Batch(numbers, clusters, self._embeddings(clusters))
        self._next = count

    def _embeddings(self, clusters: Ints) -> Floats:
        looks = 0.4 * self.random.normal(size=(len(clusters), DIMENSION))
        return ((self.centres[clusters] + looks) * self.norms[clusters, None]).astype(np.float32)

    def steps(self, turnovers: int) -> Iterator[Step]:
        """Yield steps; `live` is what is there after each."""
        for _ in range(turnovers * STEPS):
            yield self._step()

    def _step(self) -> Step:
        """Some clusters die and are born again elsewhere, the others drift, and the inserted items go to both."""
        size = len(self.live.numbers) // STEPS
        places = np.argsort(self.random.permutation(CLUSTERS)[self.live.clusters], kind="stable")[:size]
        deleted, dying = self.live.numbers[places], np.unique(self.live.clusters[places])
        self.centres = (1 - DRIFT**2) ** 0.5 * self.centres + DRIFT * self.random.normal(size=self.centres.shape)
        self.centres[dying] = self.random.normal(size=(len(dying), DIMENSION))
        homes = np.where(
            self.random.random(size) < 0.5, self.random.choice(dying, size), self.random.integers(CLUSTERS, size=size)
        )
        inserted = self._put(places, np.arange(self._next, self._next + size), homes)
        self._next += size
        places = self.random.choice(len(self.live.numbers), round(UPDATED * len(self.live.numbers)), replace=False)
        return Step(deleted, inserted, self._put(places, self.live.numbers[places], self.live.clusters[places]))

    def _put(self, places: Ints, numbers: Ints, clusters: Ints) -> Batch:
        batch = Batch(numbers, clusters, self._embeddings(clusters))
        live = self.live
        live.numbers[places], live.clusters[places], live.embeddings[places] = batch
        return batch

    def queries(self) -> Floats:
        """Return users, (QUERIES, DIMENSION): half of them near live items, half anywhere."""
        random = np.random.default_rng(self._next)
        users = random.normal(size=(QUERIES, DIMENSION))
        clusters = random.choice(self.live.clusters, QUERIES // 2)
        users[: QUERIES // 2] = self.centres[clusters] + 0.4 * users[: QUERIES // 2]
        return users.astype(np.float32)


class System:
    """An index that is measured."""

    def __init__(self, library: Any, count: int) -> None:
        """Prepare for about so many items."""

    def insert(self, batch: Batch) -> None:
        """Insert new items."""

    def delete(self, numbers: Ints) -> None:
        """Delete items that are there."""

    def update(self, batch: Batch) -> None:
        """Give items that are there new embeddings."""
        self.delete(batch.numbers)
        self.insert(batch)

    def search(self, query: Floats) -> Iterable[Any]:
        """Return the numbers of the K best items."""
        raise NotImplementedError


class Headwater(System):
    """`ItemIndex`, as it searches large corpora."""

    def __init__(self, library: Any, count: int) -> None:
        item_index.EXACT_LIMIT = 0
        self._index = ItemIndex(DIMENSION)

    def insert(self, batch: Batch) -> None:
        for start in range(0, len(batch.numbers), SLICE):
            slices = [part[start : start + SLICE] for part in batch]
            self._index.upsert([
                ItemEmbedding(str(number), (f"t{cluster}",), NOW_MS - 30 * DAY_MS, embedding)
                for number, cluster, embedding in zip(*slices, strict=True)
            ])  # fmt: skip

    update = insert

    def delete(self, numbers: Ints) -> None:
        self._index.delete([str(number) for number in numbers])

    def search(self, query: Floats) -> Iterable[Any]:
        embedding = np.concatenate((query, np.zeros(STREAMING, dtype=np.float32)))
        return self._index.search(embedding[None, :], K, None, NOW_MS)[0].item_ids


class Hnswlib(System):
    """hnswlib, whose new items take the places of deleted ones."""

    def __init__(self, library: Any, count: int) -> None:
        self._index = plain_hnswlib(count, allow_replace_deleted=True)
        self._index.set_ef(MIN_EF)

    def insert(self, batch: Batch) -> None:
        self._index.add_items(batch.embeddings, batch.numbers, replace_deleted=True)

    def delete(self, numbers: Ints) -> None:
        for number in numbers.tolist():
            self._index.mark_deleted(number)

    def update(self, batch: Batch) -> None:
        self._index.add_items(batch.embeddings, batch.numbers)

    def search(self, query: Floats) -> Iterable[Any]:
        return cast(Ints, self._index.knn_query(query[None, :], k=K)[0][0])


class Usearch(System):
    """usearch, which too reuses the places of what is removed."""

    def __init__(self, library: Any, count: int) -> None:
        efs = {"expansion_add": EF_CONSTRUCTION, "expansion_search": MIN_EF}
        self._index = library.Index(ndim=DIMENSION, metric="ip", dtype="f32", connectivity=NEIGHBOURS, **efs)

    def insert(self, batch: Batch) -> None:
        self._index.add(batch.numbers, batch.embeddings, threads=1)

    def delete(self, numbers: Ints) -> None:
        self._index.remove(numbers, threads=1)

    def search(self, query: Floats) -> Iterable[Any]:
        return cast(Ints, self._index.search(query, K, threads=1).keys)


class Faiss(System):
    """The inverted lists of faiss, trained on the first items: its HNSW cannot remove."""

    def __init__(self, library: Any, count: int) -> None:
        library.omp_set_num_threads(1)
        self._index = library.index_factory(DIMENSION, f"IVF{round(count**0.5)},Flat", library.METRIC_INNER_PRODUCT)
        self._index.set_direct_map_type(library.DirectMap.Hashtable)
        self._index.nprobe = PROBES

    def insert(self, batch: Batch) -> None:
        if not self._index.is_trained:
            self._index.train(batch.embeddings)
        self._index.add_with_ids(batch.embeddings, batch.numbers)

    def delete(self, numbers: Ints) -> None:
        self._index.remove_ids(numbers)

    def search(self, query: Floats) -> Iterable[Any]:
        found: Ints = self._index.search(query[None, :], K)[1][0]
        return found[found >= 0]


SYSTEMS: dict[str, tuple[type[System], str, str]] = {
    "Headwater": (Headwater, "hnswlib", "hnswlib"),
    "hnswlib": (Hnswlib, "hnswlib", "hnswlib"),
    "usearch": (Usearch, "usearch.index", "usearch"),
    "faiss IVF": (Faiss, "faiss", "faiss-cpu"),
}


class Answers(NamedTuple):
    """How good the answers were after one step."""

    recall: float
    failed: int
    ms_median: float


def asked(system: System, runbook: Runbook) -> Answers:
    """Ask the queries; recall is against exact search over what is live, and equal scores count as found."""
    places = {number: place for place, number in enumerate(runbook.live.numbers.tolist())}
    found, failed, taken_ms = 0, 0, list[float]()
    for query in runbook.queries():
        numbers, started = set[int](), time.perf_counter()
        with suppress(RuntimeError):
            numbers = set(map(int, system.search(query)))
        taken_ms.append((time.perf_counter() - started) * 1000)
        scores = runbook.live.embeddings @ query
        answered = [places[number] for number in numbers if number in places]
        found += int((scores[answered] >= np.partition(scores, -K)[-K] - TIE).sum())
        failed += len(answered) < K
    return Answers(found / (QUERIES * K), failed, statistics.median(taken_ms))


def grown_mb(before_mb: float) -> float:
    """Return by how much resident memory grew."""
    gc.collect()
    return round(resident_mb() - before_mb, 1)


def churned(name: str, count: int, turnovers: int, err: bool) -> Row:
    """Take an index through the runbook."""
    kind, module, _ = SYSTEMS[name]
    runbook, library = Runbook(count), importlib.import_module(module)
    deque(Runbook(count).steps(1), maxlen=0)  # what steps take for a while is not the index'
    before_mb = resident_mb()
    system, answers, taken_s, operations = kind(library, count), list[Answers](), 0.0, 0
    system.insert(runbook.live)
    for number, step in enumerate(runbook.steps(turnovers), 1):
        started = time.perf_counter()
        system.delete(step.deleted)
        system.insert(step.inserted)
        system.update(step.updated)
        taken_s += time.perf_counter() - started
        operations += len(step.deleted) + len(step.inserted.numbers) + len(step.updated.numbers)
        answers.append(asked(system, runbook))
        if number % STEPS == 0:
            recall, per_s = statistics.mean(answer.recall for answer in answers[-STEPS:]), round(operations / taken_s)
            click.echo(f"{name:<10} turnover {number // STEPS:>2}  recall@{K} {recall:.4f}  {per_s:,}/s", err=err)
    recalls = [answer.recall for answer in answers]
    return {
        f"recall@{K}_mean": round(statistics.mean(recalls), 4),
        f"recall@{K}_lowest": round(min(recalls), 4),
        f"recall@{K}_last": round(recalls[-1], 4),
        "failed": sum(answer.failed for answer in answers),
        "queries": QUERIES * len(answers),
        "ms_median": round(statistics.median(answer.ms_median for answer in answers), 3),
        "operations_per_s": round(operations / taken_s),
        "mb": grown_mb(before_mb),
    }


def fresh(name: str, count: int, turnovers: int) -> Row:
    """Build an index of what is live at the end of the runbook."""
    kind, module, _ = SYSTEMS[name]
    runbook, library = Runbook(count), importlib.import_module(module)
    deque(runbook.steps(turnovers), maxlen=0)
    before_mb, started = resident_mb(), time.perf_counter()
    system = kind(library, count)
    system.insert(runbook.live)
    per_s, answers = round(count / (time.perf_counter() - started)), asked(system, runbook)
    own = {"fresh_inserts_per_s": per_s, "fresh_mb": grown_mb(before_mb)}
    return {f"fresh_recall@{K}": round(answers.recall, 4), **own}


@click.command()
@click.option("--items", type=click.IntRange(1000), default=10_000, show_default=True)
@click.option("--turnovers", type=click.IntRange(1), default=10, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(items: int, turnovers: int, as_json: bool) -> None:
    """Take every system there is through the same runbook and write what was measured."""
    rows = list[Row]()
    for name, (_, module, package) in SYSTEMS.items():
        if library_of(module, package):
            row = {"system": name, **alone(churned, name, items, turnovers, as_json)}
            row |= alone(fresh, name, items, turnovers)
            row["mb_over_fresh"] = round(row["mb"] / row["fresh_mb"], 2)
            rows.append(row)
            click.echo("  ".join(f"{key} {value}" for key, value in row.items()), err=as_json)
    document = {"items": items, "turnovers": turnovers, "k": K, "rows": rows}
    record("churn", document)
    if as_json:
        click.echo(json.dumps(document))


if __name__ == "__main__":
    main()

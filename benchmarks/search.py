"""Headwater against the search libraries, everywhere and inside topics, on one core: `python -m benchmarks.search`.

Items and users are those of `benchmarks.items`. Topics hold a share of the items each, whatever their clusters: the
hard case for a graph that is searched with a filter. Times are medians of runs that are interleaved over the systems.
"""

import importlib
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar, cast

import click
import numpy as np
import numpy.typing as npt

from benchmarks.harness import record
from benchmarks.items import DIMENSION, NOW_MS, TIE, K, built, make_items, plain_hnswlib, resident_mb
from headwater.index import ItemIndex, Relevance, item_index
from headwater.index.graph_nodes import EF_CONSTRUCTION, NEIGHBOURS
from headwater.item_embedding import ItemEmbedding

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.3)
EFS = (200, 800, 3200)
"""hnswlib's usual, what `Graph` searches with, and what the graphs need to come near its recall."""
OVERFETCH = 4
SLOW_QUERIES = 20
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Answer = Sequence[Any] | npt.NDArray[Any]
Search = Callable[[Floats], Answer]
Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """Items, their embeddings (N, DIMENSION), ranks (N,) in a random order, and queries (Q, DIMENSION + STREAMING)."""

    items: list[ItemEmbedding]
    embeddings: Floats
    ranks: Ints
    queries: Floats

    def limit(self, share: float) -> int:
        """Return below which rank an item carries the topic of a share."""
        return max(1, round(share * len(self.items)))


class Engine(NamedTuple):
    """One system's index: its searches of everything by name, and those inside the topic of a share."""

    everything: dict[str, Search]
    inside: Callable[[float], dict[str, Search]] = lambda share: {}


def make_corpus(count: int) -> Corpus:
    """Return items that carry the topic of each share besides their own."""
    random = np.random.default_rng(0)
    items, queries = make_items(count, random)
    corpus = Corpus(items, np.stack([item.embedding for item in items]), random.permutation(count), queries)
    for share in SHARES:
        for place in np.flatnonzero(corpus.ranks < corpus.limit(share)).tolist():
            items[place] = replace(items[place], topics=(*items[place].topics, _topic(share)))
    return corpus


def _topic(share: float) -> str:
    return f"share-{100 * share:g}%"


def _headwater(index: ItemIndex) -> Engine:
    planned = item_index.EXACT_LIMIT

    def search(query: Floats, exact_limit: int = planned, topic: str | None = None) -> list[str]:
        item_index.EXACT_LIMIT = exact_limit
        return index.search(query[None, :], K, topic, NOW_MS, relevance=Relevance.TOPIC)[0].item_ids

    everything: dict[str, Search] = {"Headwater": search, "Headwater, graph": partial(search, exact_limit=0)}
    return Engine(everything, lambda share: {"Headwater": partial(search, topic=_topic(share))})


def _hnswlib(library: Any, corpus: Corpus) -> Engine:
    index = plain_hnswlib(len(corpus.items))
    index.add_items(corpus.embeddings)

    def search(query: Floats, ef: int = EFS[0], k: int = K, keep: Callable[[int], bool] | None = None) -> Answer:
        index.set_ef(ef)
        return cast(Ints, index.knn_query(query[None, :DIMENSION], k=k, filter=keep)[0][0])

    def inside(share: float) -> dict[str, Search]:
        members = corpus.ranks < corpus.limit(share)
        keep = members.tolist().__getitem__
        found_before: dict[bytes, int] = {}

        def filtered(query: Floats) -> Answer:
            """Ask for as many as were found the time before, so that no failed search is timed."""
            k = found_before.setdefault(query.tobytes(), min(K, int(members.sum())))
            while k:
                try:
                    return search(query, k=k, keep=keep)
                except RuntimeError:  # hnswlib's word for "found fewer than k"
                    k -= max(1, k // 10)
                    found_before[query.tobytes()] = k
            return []

        def overfetched(query: Floats) -> Answer:
            found = np.asarray(search(query, k=OVERFETCH * K), dtype=np.int64)
            return found[members[found]][:K]

        return {SLOW: filtered, f"hnswlib, {OVERFETCH} k, then filter": overfetched}

    return Engine({f"hnswlib, ef {ef}": partial(search, ef=ef) for ef in EFS}, inside)


def _usearch(library: Any, corpus: Corpus) -> Engine:
    settings = {"metric": "ip", "dtype": "f32", "connectivity": NEIGHBOURS, "expansion_add": EF_CONSTRUCTION}
    index = library.Index(ndim=DIMENSION, **settings)
    index.add(np.arange(len(corpus.items)), corpus.embeddings, threads=1)

    def search(query: Floats, ef: int) -> Ints:
        index.expansion_search = ef
        return cast(Ints, index.search(query[:DIMENSION], K, threads=1).keys)

    # Its Python interface takes no predicate, so that inside a topic it could only fetch more and filter, as hnswlib.
    return Engine({f"usearch, ef {ef}": partial(search, ef=ef) for ef in EFS})


def _voyager(library: Any, corpus: Corpus) -> Engine:
    index = library.Index(library.Space.InnerProduct, DIMENSION, M=NEIGHBOURS, ef_construction=EF_CONSTRUCTION)
    index.add_items(corpus.embeddings, num_threads=1)

    def search(query: Floats, ef: int) -> Ints:
        return cast(Ints, index.query(query[:DIMENSION], k=K, num_threads=1, query_ef=ef)[0])

    return Engine({f"voyager, ef {ef}": partial(search, ef=ef) for ef in EFS})


def _faiss(library: Any, corpus: Corpus, index: Any, parameters: dict[str, Callable[..., Any]]) -> Engine:
    library.omp_set_num_threads(1)
    index.add(corpus.embeddings)

    def search(query: Floats, params: Any, bits: npt.NDArray[np.uint8] | None = None) -> Ints:
        found: Ints = index.search(query[None, :DIMENSION], K, params=params)[1][0]
        return found[found >= 0]

    def inside(share: float) -> dict[str, Search]:
        # The selector points at the bits: the searches keep them.
        bits = np.packbits(corpus.ranks < corpus.limit(share), bitorder="little")
        selector = library.IDSelectorBitmap(len(bits), library.swig_ptr(bits))
        return {
            f"{name}, IDSelectorBitmap": partial(search, params=make(sel=selector), bits=bits)
            for name, make in parameters.items()
        }

    return Engine({name: partial(search, params=make()) for name, make in parameters.items()}, inside)


def _faiss_graph(library: Any, corpus: Corpus) -> Engine:
    index = library.IndexHNSWFlat(DIMENSION, NEIGHBOURS, library.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    make = library.SearchParametersHNSW
    return _faiss(library, corpus, index, {f"faiss HNSW, ef {ef}": partial(make, efSearch=ef) for ef in EFS})


def _faiss_flat(library: Any, corpus: Corpus) -> Engine:
    return _faiss(library, corpus, library.IndexFlatIP(DIMENSION), {"faiss flat": library.SearchParameters})


PEERS: dict[str, tuple[str, str, Callable[[Any, Corpus], Engine]]] = {
    "hnswlib": ("hnswlib", "hnswlib", _hnswlib),
    "usearch": ("usearch.index", "usearch", _usearch),
    "voyager": ("voyager", "voyager", _voyager),
    "faiss HNSW": ("faiss", "faiss-cpu", _faiss_graph),
    "faiss flat": ("faiss", "faiss-cpu", _faiss_flat),
}
SLOW = "hnswlib, filter callback"


def library_of(module: str, package: str) -> Any | None:
    """Return a library, None with a word where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        click.echo(f"{package} is not installed: pip install {package}", err=True)
        return None


def alone(task: Callable[..., T], *given: Any) -> T:
    """Return what a task finds in a process of its own, on one thread."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(task, *given).result()


def measured(searches: dict[str, Search], corpus: Corpus, share: float | None, runs: int) -> list[Row]:
    """Return a row for each search; index_recall@K is against exact search, and equal scores count as found."""
    members = corpus.ranks < (len(corpus.items) if share is None else corpus.limit(share))
    taken_ms: dict[str, list[list[float]]] = {name: [] for name in searches}
    answers: dict[str, list[Ints]] = {}
    for name, search in searches.items():
        asked = corpus.queries[: SLOW_QUERIES if name == SLOW else None]
        answers[name] = [_numbers(search(query)) for query in asked]
    for _ in range(runs):
        for name, search in searches.items():
            taken_ms[name].append([_timed_ms(search, query) for query in corpus.queries[: len(answers[name])]])
    bars, wanted = _bars(corpus, members), min(K, int(members.sum()))
    rows = []
    for name, times_ms in taken_ms.items():
        found = answered = 0
        for query, bar, numbers in zip(corpus.queries, bars, answers[name], strict=False):
            eligible = numbers[members[numbers]]
            answered += len(eligible)
            found += int((corpus.embeddings[eligible] @ query[:DIMENSION] >= bar - TIE).sum())
        total = wanted * len(answers[name])
        rows.append({
            "system": name,
            "ms_median": round(statistics.median(map(statistics.median, times_ms)), 3),
            "ms_p99": round(float(np.percentile(times_ms, 99)), 3),
            f"index_recall@{K}": round(found / total, 4),
            "fill": round(answered / total, 4),
        })  # fmt: skip
    return rows


def _timed_ms(search: Search, query: Floats) -> float:
    started = time.perf_counter()
    search(query)
    return (time.perf_counter() - started) * 1000


def _numbers(answer: Answer) -> Ints:
    """Return the different items of an answer; Headwater names them `item-0`, `item-1` …."""
    return np.unique(np.array([int(str(found).removeprefix("item-")) for found in answer], dtype=np.int64))


def _bars(corpus: Corpus, members: Bools) -> list[float]:
    """Return the score of the last item that each query ought to find."""
    embeddings = corpus.embeddings[members]
    place = len(embeddings) - min(K, len(embeddings))
    return [float(np.partition(embeddings @ query[:DIMENSION], place)[place]) for query in corpus.queries]


def figures_of(count: int, runs: int, err: bool) -> tuple[list[Row], Row]:
    """Measure one size of corpus: a row for each part and system, and what only Headwater is asked."""
    corpus = make_corpus(count)
    before_mb = resident_mb()
    index, inserts = built(corpus.items)
    own = {"items": count, "index_mb": round(resident_mb() - before_mb), "inserts_per_s": round(inserts)}
    click.echo(f"{count:>9,}  Headwater: {own['index_mb']:,} MB, {own['inserts_per_s']:,} inserts/s", err=err)
    engines = [_headwater(index)]
    built_per_s = dict.fromkeys(engines[0].everything, own["inserts_per_s"])
    for module, package, build in PEERS.values():
        if library := library_of(module, package):
            started = time.perf_counter()
            engines.append(build(library, corpus))
            per_s = round(count / (time.perf_counter() - started))
            built_per_s |= dict.fromkeys(engines[-1].everything, per_s)
    rows = []
    for share in (None, *SHARES):
        parts = [engine.everything if share is None else engine.inside(share) for engine in engines]
        searches = {name: search for part in parts for name, search in part.items()}
        part = "everything" if share is None else f"topic {100 * share:g}%"
        for row in measured(searches, corpus, share, runs):
            built_here = {"build_per_s": built_per_s[row["system"]]} if share is None else {}
            rows.append({"items": count, "part": part, **row, **built_here})
            click.echo(_line(rows[-1]), err=err)
    return rows, own


def _line(row: Row) -> str:
    figures = [f"{name} {row[name]:g}" for name in ("ms_median", "ms_p99", f"index_recall@{K}", "fill")]
    figures += [f"{row['build_per_s']:,} built/s"] if "build_per_s" in row else []
    return f"{row['items']:>9,}  {row['part']:<12} {row['system']:<36} " + "  ".join(figures)


@click.command()
@click.option(
    "--items", "sizes", type=click.IntRange(1000), multiple=True, default=(10_000, 100_000), show_default=True
)
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document for each size.")
def main(sizes: tuple[int, ...], runs: int, as_json: bool) -> None:
    """Time searches of every library there is and write what was measured."""
    for size in sizes:
        rows, own = alone(figures_of, size, runs, as_json)
        document = {"k": K, "runs": runs, "rows": rows, "headwater": [own]}
        record("search", document, f"-{size}", ("--items", str(size), "--runs", str(runs)))
        if as_json:
            click.echo(json.dumps(document))


if __name__ == "__main__":
    main()

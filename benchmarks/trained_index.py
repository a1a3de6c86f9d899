"""HNSW and cells against exact search over embeddings a trainer made of news clicks: `python -m benchmarks.trained_index`.

index_recall@50 of scores with streaming features, of which graph and cells know nothing.
"""

import time
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.harness import BEGIN_MS, news, record
from headwater.activity import ItemActivity
from headwater.covisit_features import COVISITS
from headwater.durations import DAY_MS
from headwater.index import Candidates, ItemIndex, cells, item_index, large_search
from headwater.item_embedding import ItemEmbedding
from headwater.query_features import Query, encode_queries
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.corpus import Corpus
from training.examples import Logged, build_examples
from training.learner import Learner

EVENTS = 100_000
QUERIES = 500
TOPICS = 30
K = 50
TIE = 1e-4
ALL = "all"
"""A topic of all items, of which a search reads at least as large a share as of 300,000 items."""
READ_SHARE = 0.027


@click.command()
def main() -> None:
    """Train, index, search, and keep the figures."""
    data, corpus, users = news(), Corpus(), Users()
    for item in data.items:
        corpus.put(item)
    end_ms = data.until(EVENTS)
    events = data.engagements.events(BEGIN_MS, end_ms)
    log = build_examples(users, corpus, (Logged(event, 0, offset) for offset, event in enumerate(events)))
    learner = Learner(corpus, LearningSettings(live_for_ms=DAY_MS))
    for batch in prepare(corpus, log, learner.settings, np.random.default_rng(0)):
        learner.step(batch)
    index = _index(learner, end_ms)
    asked = [users.record(user_id) for user_id in list(users.rows)[-QUERIES:]]
    topics = corpus.topics[:TOPICS]
    queries = [Query(user.state, topics[place % len(topics)]) for place, user in enumerate(asked)]
    features = encode_queries(queries, end_ms, corpus)
    embeddings = learner.embed_users(features, features["condition"].astype(np.int64))
    dense = np.ascontiguousarray(embeddings[:, :-COVISITS])
    found: dict[str, tuple[list[Candidates], float]] = {}
    item_index.EXACT_TOPIC_LIMIT = len(index) - 1
    cells.LEAST_READ = large_search.PROBED_ITEMS = round(READ_SHARE * len(index))
    index.give_cells(ALL, cells.Cells.learned(index.embeddings(ALL)))
    for name, limit, topic in (("exact", len(index), None), ("hnsw", 0, None), ("cells", 0, ALL)):
        item_index.EXACT_LIMIT = limit
        index.search(dense[:1], K, topic, end_ms)
        started = time.perf_counter()
        answers = [index.search(query[None, :], K, topic, end_ms)[0] for query in dense]
        found[name] = answers, (time.perf_counter() - started) / len(dense) * 1000
    active = index.everything.active_rows(end_ms - item_index.ACTIVE_MS)
    figures: dict[str, Any] = {"items": len(index), "queries": len(dense), "least_read": cells.LEAST_READ}
    figures |= {"active": len(active), "active_of_best": _share(index, active, found["exact"][0])}
    for name, (answers, taken_ms) in found.items():
        figures |= {f"{name}_ms": round(taken_ms, 3), f"{name}_recall": _recall(answers, found["exact"][0])}
    click.echo(str(figures))
    record("trained_index", figures)


def _recall(answers: list[Candidates], exact: list[Candidates]) -> float:
    shares = [np.mean(got.scores >= best.scores[-1] - TIE) for got, best in zip(answers, exact, strict=True)]
    return round(float(np.mean(shares)), 4)


def _share(index: ItemIndex, active: npt.NDArray[np.int64], answers: list[Candidates]) -> float:
    """Return how many of the exact answers' items are always scored, whatever graph and cells find."""
    rows = [index.everything.rows[item_id] for answer in answers for item_id in answer.item_ids]
    return round(float(np.isin(rows, active).mean()), 4)


def _index(learner: Learner, end_ms: int) -> ItemIndex:
    """Return an index of the items that are published by then."""
    corpus = learner.corpus
    numbers = np.arange(1, len(corpus) + 1)
    embeddings, index = learner.embed_items(numbers), ItemIndex(learner.settings.dimension)
    index.upsert(
        [
            ItemEmbedding(item.item_id, (*item.topics, ALL), item.published_at, embedding)
            for item, embedding in zip(corpus.items, embeddings, strict=True)
            if item.published_at < end_ms
        ]
    )
    for number in np.flatnonzero(corpus.totals).tolist():
        activity = ItemActivity(
            tuple(corpus.counts[number].tolist()),
            as_of_ms=int(corpus.engaged_ms[number]),
            total=int(corpus.totals[number]),
            first_ms=int(corpus.first_ms[number]),
        )
        index.set_activity(corpus.items[number - 1].item_id, activity)
    return index


if __name__ == "__main__":
    main()

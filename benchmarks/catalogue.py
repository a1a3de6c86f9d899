"""What grows with the catalogue in the trainer: `python -m benchmarks.catalogue`.

Synthetic items of one topic each; 2,000 engagements a second with those of a long tail. A learner trains on some of them,
ranks the newest ones as a refresh does before its gate, and writes bundle and checkpoint; no Kafka, no server.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.harness import record
from benchmarks.items import NOW_MS, zipf_clusters
from headwater.durations import DAY_MS
from headwater.events import Engagement, Item
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.checkpoint import write_checkpoint
from training.corpus import Corpus
from training.evaluation.scorers import LearnerScorer
from training.examples import Examples, Logged, build_examples
from training.export import export_bundle
from training.gate import CANDIDATE, rank_newest
from training.learner import Learner, use_half_of_the_cores
from training.recent import Recent

PER_S = 2_000
WARM, LEARNED, RANKED = 10_240, 61_440, 2_000
USERS = 20_000
TAIL = 1.1
HEAD = 50


@click.command()
@click.option("--items", "sizes", type=click.IntRange(1_000), multiple=True, default=(10_000, 100_000, 1_000_000))
def main(sizes: tuple[int, ...]) -> None:
    """Measure and keep the figures."""
    use_half_of_the_cores()
    rows = [_row(size) for size in sizes]
    click.echo(json.dumps(rows, indent=1))
    record("catalogue", {"runs": 1, "rows": rows})


def _row(size: int) -> dict[str, Any]:
    corpus, users = _corpus(size), Users()
    examples = build_examples(users, corpus, _engagements(size))
    learner, random = Learner(corpus, LearningSettings()), np.random.default_rng(0)

    def learn(part: Examples) -> None:
        for batch in prepare(corpus, part, learner.settings, random):
            learner.step(batch)

    learn(examples[:WARM])
    learned, newest = examples[WARM : WARM + LEARNED], examples[WARM + LEARNED :]
    train_s = _seconds(lambda: learn(learned))
    recent = Recent()
    recent.add(examples)
    row: dict[str, Any] = {"items": size, "examples_per_s": round(len(learned) / train_s)}
    row["rank_s"] = _seconds(lambda: rank_newest({CANDIDATE: LearnerScorer(learner)}, corpus, newest, recent, None, 0))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        states = [users.record("0").state]
        row["export_s"] = _seconds(lambda: export_bundle(learner, path / "onnx", states, NOW_MS, {}, {}))
        row["checkpoint_s"] = _seconds(lambda: write_checkpoint(path / "checkpoints", "v1", learner, users, {}))
    click.echo(json.dumps(row), err=True)
    return row


def _corpus(size: int) -> Corpus:
    """Return items published within a month, of Zipf-sized topics."""
    random = np.random.default_rng(0)
    topics = zipf_clusters(size, random).tolist()
    published_ms = (NOW_MS - random.integers(0, 30 * DAY_MS, size=size)).tolist()
    corpus = Corpus()
    for number, (topic, at_ms) in enumerate(zip(topics, published_ms, strict=True)):
        corpus.put(Item(item_id=str(number), topics=(f"t{topic}",), published_at=at_ms))
    return corpus


def _engagements(size: int) -> Iterator[Logged]:
    """Yield engagements, most of them with few of the items."""
    random, count = np.random.default_rng(1), WARM + LEARNED + RANKED
    items = ((HEAD * random.pareto(TAIL, size=count)).astype(np.int64) % size).tolist()
    users = random.integers(0, USERS, size=count).tolist()
    for number, (item, user) in enumerate(zip(items, users, strict=True)):
        at_ms = NOW_MS + number * 1_000 // PER_S
        engagement = Engagement(event_id=str(number), user_id=str(user), item_id=str(item), occurred_at=at_ms)
        yield Logged(engagement, 0, number)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return round(time.perf_counter() - begun, 2)


if __name__ == "__main__":
    main()

"""Training-serving skew: `python -m benchmarks.skew [VECTORS]`.

Feature vectors are logged as a server makes them, from Redis records and followed successions, just before each
engagement; the trainer then rebuilds them from the log. Every bit must be equal.
"""

import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from headwater.durations import HOUR_MS
from headwater.events import Engagement, Item
from headwater.fold import Outcome
from headwater.item_covisits import ItemCovisits
from headwater.query_features import Query, encode_queries
from headwater.simulator import World
from headwater.successions import Succession, decode_successions
from headwater.user_record import UserRecord, decode_user_record
from headwater.users import Placed, Users
from tests.folding import encoded, succession
from training.corpus import Corpus
from training.examples import Examples, Logged, build_examples

VECTORS = 100_000
SLICE = 32
LATE_EVERY, LATE_SHARE = 40, 20
"""One engagement in so many comes late, by one part in so many of the log."""

Served = tuple[dict[str, npt.NDArray[Any]], dict[str, bytes]]


def differing(vectors: int, seed: int = 0) -> int:
    """Return how many of the first `vectors` served feature vectors differ from the rebuilt ones."""
    corpus, log = _log(vectors, seed)
    served = _served(corpus, log)
    examples = build_examples(Users(), corpus, log)
    rebuilt = _rebuilt(corpus, examples)
    assert len(served) == len(examples) == len(rebuilt)
    count = 0
    for row, ((features, covisits), again) in enumerate(zip(served, rebuilt, strict=True)):
        same = all(values.tobytes() == examples.features[name][row].tobytes() for name, values in features.items())
        count += not (same and covisits == again)
    return count


def _log(vectors: int, seed: int) -> tuple[Corpus, list[Logged]]:
    corpus, engagements = Corpus(), list[Engagement]()
    world = World(seed=seed, users=max(50, vectors // 40), engagements_per_hour=max(600, vectors // 4))
    while len(engagements) < vectors:
        for event in world.step(HOUR_MS):
            if isinstance(event, Item):
                corpus.put(event)
            elif isinstance(event, Engagement):
                engagements.append(event)
    order = sorted(range(vectors), key=lambda place: place + (place % LATE_EVERY == 0) * vectors // LATE_SHARE)
    return corpus, [Logged(engagements[place], 0, offset) for offset, place in enumerate(order)]


def _served(corpus: Corpus, log: list[Logged]) -> list[Served]:
    """Return tower inputs and co-visitation, item id to features, as serving has them before each engagement."""
    stored: dict[str, bytes] = {}
    covisits = ItemCovisits()
    served: list[Served] = []
    pending: list[Succession] = []
    for number, logged in enumerate(log):
        engagement = logged.engagement
        if number % SLICE == 0:
            covisits.count(0, [each for value in encoded(pending) for each in decode_successions(value)])
            pending = []
        kept = stored.get(engagement.user_id)
        record = decode_user_record(kept) if kept else UserRecord()
        features = encode_queries([Query(record.state, None)], engagement.occurred_at, corpus)
        history = record.state.item_ids[::-1]
        topics = corpus.items[corpus.item_index[engagement.item_id] - 1].topics
        placed, users = Placed(engagement, topics, logged.partition, logged.offset), Users()
        users.put({engagement.user_id: record})
        folded = users.fold([placed])
        stored[engagement.user_id] = users.encoded([0])[0]
        if folded.outcomes[0] == Outcome.APPLIED:
            after = covisits.features(history, engagement.occurred_at)
            inputs = {name: values[0] for name, values in features.items()}
            served.append((inputs, {item_id: values.tobytes() for item_id, values in after.items()}))
            pending.append(succession(users, folded, placed))
    return served


def _rebuilt(corpus: Corpus, examples: Examples) -> list[dict[str, bytes]]:
    rebuilt = []
    for start in range(0, len(examples), SLICE):
        part = examples[start : start + SLICE]
        found = corpus.covisits.features(part.histories, part.times_ms)
        ends = np.searchsorted(found.owners, np.arange(len(part) + 1))
        for begin, end in pairwise(ends.tolist()):
            named = zip(found.items[begin:end].tolist(), found.values[begin:end], strict=True)
            rebuilt.append({corpus.items[number - 1].item_id: values.tobytes() for number, values in named})
        corpus.count(part.items, part.times_ms, part.predecessors)
    return rebuilt


def main() -> None:
    """Say how many vectors differ; fail if any does."""
    vectors, started = int(sys.argv[1]) if len(sys.argv) > 1 else VECTORS, time.monotonic()
    count = differing(vectors)
    print(
        f"{vectors:,} served feature vectors rebuilt from the log: {count} differ ({time.monotonic() - started:.0f} s)"
    )
    sys.exit(count > 0)


if __name__ == "__main__":
    main()

"""Batches as every model of a run sees them: the same conditions, negatives and streaming features."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from headwater.covisit_features import CovisitFeatures
from training.corpus import Corpus
from training.dynamic_scores import DynamicFeatures
from training.examples import Examples
from training.sampling import LiveItems, SampledItems, sample_conditions, sample_items

Ints = npt.NDArray[np.int64]
LIVE_AGAIN_MS = 30_000
"""How long what is live is taken to be the same: of a million items it takes as long to find as many steps."""


@dataclass(frozen=True)
class LearningSettings:
    """How a model is trained.

    Attributes:
        batch: Examples per step; they are neighbours in time.
        slice_: Examples that share one computation of the streaming features.
        uniform: Live items drawn for a step, beside the batch's own.
        same_condition: Rows drawn for a step, each of which draws a live item of its condition, if it has one.
        live_for_ms: Items neither published nor engaged with for this long are no negatives.
        min_engagements: Engagements before an item gets an embedding of its own.
        ids, id_rows: The table of id embeddings, see `id_table`, and its size where that is fixed.
        personas: Vectors of taste per user, see `UserTower`.
        reward: Weight of the loss that raises the metric itself, see `reward_loss`.
        auxiliary: Weight of the loss that predicts the condition from the taste half of the user embedding.
        second_stage: Train a ranker of the best items of a topic, too, see `ranker`.
        streaming, covisits: False leaves these features out.
        held_out: Share of the topics that are never asked for, to measure conditions unknown to the model.
        fusion: How the condition enters the user tower, one of `FUSIONS`.
        conditions: Topics of an engaged item asked for in one step.
        unconditioned: Ask without a condition, too, so that the user is learned from all items.
        condition_sampling: How conditions are drawn, see `sample_conditions`.
    """

    batch: int = 512
    slice_: int = 64
    uniform: int = 512
    same_condition: int = 128
    learning_rate: float = 2e-3
    id_learning_rate: float = 1e-2
    live_for_ms: int | None = None
    min_engagements: int = 5
    fusion: str = "steer"
    conditions: int = 1
    unconditioned: bool = True
    condition_sampling: str = "random"
    held_out: float = 0.0
    ids: str = "own"
    id_rows: int = 0
    personas: int = 1
    reward: float = 0.0
    auxiliary: float = 0.0
    second_stage: bool = False
    streaming: bool = True
    covisits: bool = True
    dimension: int = 64
    seed: int = 0

    def of_batches(self) -> "LearningSettings":
        """Return the settings with the defaults of all that batches do not depend on."""
        sampling = ("uniform", "same_condition", "conditions", "unconditioned", "condition_sampling", "held_out")
        names = ("batch", "slice_", "live_for_ms", *sampling)
        return LearningSettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class PreparedBatch:
    """One step's input.

    Attributes:
        examples: B examples, neighbours in time.
        rows: (R,) the example of each row, ascending: a row for each condition that an engaged item is asked for with.
        conditions: (R,) one of the engaged item's topics, 0 where it has none.
        sampled: The C items they are scored against.
        dynamic: Streaming and co-visitation features of the C items.
        seen: Rows and positions of sampled items that the user engaged with before; they are no negatives, as they would
            not be retrieved.
    """

    examples: Examples
    rows: Ints
    conditions: Ints
    sampled: SampledItems
    dynamic: DynamicFeatures
    seen: tuple[Ints, Ints]


def prepare(
    corpus: Corpus,
    examples: Examples,
    settings: LearningSettings,
    random: np.random.Generator,
    counted: bool = False,
) -> Iterator[PreparedBatch]:
    """Yield batches in the order given.

    Args:
        corpus: The items; each example is counted in their activity as its slice has passed.
        examples: In order of time, or `counted` already.
        settings: How to sample.
        random: Source of chance.
        counted: The activity contains all of the examples; none is counted again.
    """
    live: LiveItems | None = None
    for start in range(0, len(examples), settings.batch):
        batch = examples[start : start + settings.batch]
        # Late engagements come first in a refresh; what is live or popular is a matter of the present.
        now_ms = int(batch.times_ms[0]) if counted else max(int(batch.times_ms[0]), int(corpus.engaged_ms.max()))
        popularity = corpus.totals.__getitem__ if counted else partial(corpus.popularity, now_ms=now_ms)
        if live is None or not len(live.numbers) or abs(now_ms - live.now_ms) >= LIVE_AGAIN_MS:
            live = LiveItems(corpus, now_ms, settings.live_for_ms, popularity)
        if not len(live.numbers):
            if not counted:
                corpus.count(batch.items, batch.times_ms, batch.predecessors)
            continue
        rows, conditions = sample_conditions(
            corpus,
            batch.items,
            random,
            settings.conditions,
            settings.condition_sampling,
            settings.unconditioned,
            settings.held_out,
        )
        sampled = sample_items(
            corpus, batch.items, conditions, live, popularity, random, settings.uniform, settings.same_condition
        )
        column_of = corpus.positions(sampled.items)
        dynamic = _features_by_slice(corpus, batch, rows, sampled.items, column_of, settings.slice_, counted)
        seen = column_of[batch.histories]  # (B, HISTORY)
        seen[seen == sampled.positives[:, None]] = -1
        seen = seen[rows]
        known = np.nonzero(seen >= 0)
        yield PreparedBatch(batch, rows, conditions, sampled, dynamic, (known[0], seen[known]))


def _features_by_slice(
    corpus: Corpus, batch: Examples, rows: Ints, items: Ints, column_of: Ints, size: int, counted: bool
) -> DynamicFeatures:
    """Return the features of items (C,) before each slice of a batch; count each slice after, unless it is counted.

    Args:
        corpus: The items.
        batch: B examples.
        rows: (R,) the example of each row, ascending.
        items: (C,) item numbers.
        column_of: Position of each item number in `items`, -1 where it is not there.
        size: Examples of a slice.
        counted: See `prepare`.
    """
    slices, streaming, covisits = [], [], []
    for begin in range(0, len(batch), size):
        passed = slice(begin, begin + size)
        first, last = np.searchsorted(rows, (begin, begin + size))
        slices.append(int(last - first))
        streaming.append(corpus.streaming(items, int(batch.times_ms[begin])))
        found = corpus.covisits.features(batch.histories[passed], batch.times_ms[passed], column_of)
        covisits.append(found._replace(owners=found.owners + begin))
        if not counted:
            corpus.count(batch.items[passed], batch.times_ms[passed], batch.predecessors[passed])
    return DynamicFeatures(slices, streaming, CovisitFeatures(*map(np.concatenate, zip(*covisits, strict=True))))

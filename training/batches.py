"""Batches as every model of a run sees them: the same conditions, negatives and streaming features."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headwater.covisits import CovisitFeatures
from training.corpus import Corpus
from training.examples import Examples
from training.sampling import Candidates, sample_candidates

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LearningSettings:
    """How a model is trained.

    Attributes:
        batch: Examples a step; they are neighbours in time.
        slice_: Examples that share one reading of the streaming features.
        uniform, same_condition: Negatives drawn for a step, beside the batch's own items.
        live_for_ms: Items neither published nor engaged with for this long are no negatives.
        min_engagements: Engagements before an item gets an embedding of its own.
    """

    batch: int = 512
    slice_: int = 32
    uniform: int = 512
    same_condition: int = 128
    within_topic: float = 1.0
    learning_rate: float = 2e-3
    id_learning_rate: float = 1e-2
    live_for_ms: int | None = None
    min_engagements: int = 5
    dimension: int = 64
    seed: int = 0


@dataclass(frozen=True)
class PreparedBatch:
    """One step's input.

    Attributes:
        examples: B examples, neighbours in time.
        conditions: (B,) one of each engaged item's topics.
        candidates: The C items they are scored against.
        streaming: For each slice of examples (C, STREAMING), read before the slice was counted.
        covisits: Sparse (B, C, COVISITS), likewise.
    """

    examples: Examples
    conditions: Ints
    candidates: Candidates
    streaming: list[npt.NDArray[np.float32]]
    covisits: CovisitFeatures


def sample_conditions(corpus: Corpus, items: Ints, random: np.random.Generator) -> Ints:
    """Return one of each item's own topics, 0 for items without."""
    topics = corpus.item_topics[items]  # (N, T)
    count = (topics > 0).sum(axis=1)
    chosen = (random.random(len(items)) * np.maximum(count, 1)).astype(np.int64)
    sampled: Ints = topics[np.arange(len(items)), chosen]
    return sampled


def prepare(
    corpus: Corpus, examples: Examples, settings: LearningSettings, random: np.random.Generator
) -> Iterator[PreparedBatch]:
    """Yield batches in order of time; each example is counted in the corpus' activity as its slice has passed."""
    for start in range(0, len(examples), settings.batch):
        batch = examples[start : start + settings.batch]
        live = corpus.live(int(batch.times_ms[0]), settings.live_for_ms)
        if not len(live):
            corpus.engage(batch.items, batch.times_ms, batch.histories)
            continue
        conditions = sample_conditions(corpus, batch.items, random)
        candidates = sample_candidates(
            corpus, batch.items, conditions, live, random, settings.uniform, settings.same_condition
        )
        streaming, covisits = [], []
        places = corpus.places(candidates.items)
        for slice_start in range(0, len(batch), settings.slice_):
            rows = slice(slice_start, slice_start + settings.slice_)
            streaming.append(corpus.streaming(candidates.items, int(batch.times_ms[rows][0])))
            found = corpus.covisits.features(batch.histories[rows], batch.times_ms[rows], places)
            covisits.append(found._replace(owners=found.owners + slice_start))
            corpus.engage(batch.items[rows], batch.times_ms[rows], batch.histories[rows])
        joined = CovisitFeatures(*map(np.concatenate, zip(*covisits, strict=True)))
        yield PreparedBatch(batch, conditions, candidates, streaming, joined)

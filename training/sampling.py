"""Negatives and their sampling probabilities."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.corpus import Corpus

Ints = npt.NDArray[np.int64]
POPULARITY_WINDOW = 2
SMOOTHING = 0.1


@dataclass(frozen=True)
class Candidates:
    """The items a batch is scored against.

    Attributes:
        items: (C,) unique numbers, the batch's positives among them.
        log_q: (C,) log of the probability that an item is among them (logQ correction).
        positives: (B,) place of each example's positive in `items`.
    """

    items: Ints
    log_q: npt.NDArray[np.float32]
    positives: Ints


def sample_candidates(
    corpus: Corpus,
    positives: Ints,
    conditions: Ints,
    live: Ints,
    random: np.random.Generator,
    uniform: int,
    same_condition: int,
) -> Candidates:
    """Return the unique in-batch items, uniform live negatives and same-condition negatives.

    Args:
        corpus: The items.
        positives: (B,) engaged items.
        conditions: (B,) their sampled topics; same-condition negatives are drawn from these topics.
        live: (L,) live items.
        random: Source of chance.
        uniform: Number of uniform draws.
        same_condition: Number of same-condition draws.
    """
    uniformly = random.choice(live, uniform)
    matching, rate = _matching(corpus, random.choice(conditions, same_condition), live, random)
    items, places = np.unique(np.concatenate((positives, uniformly, matching)), return_inverse=True)
    popularity = corpus.counts[:, POPULARITY_WINDOW] + SMOOTHING
    share = popularity[items] / popularity[live].sum()
    expected = share * len(positives) + uniform / len(live) + rate[corpus.item_topics[items]].sum(axis=1)
    log_q = np.log(-np.expm1(-expected)).astype(np.float32)
    return Candidates(items, log_q, places[: len(positives)])


def _matching(
    corpus: Corpus, topics: Ints, live: Ints, random: np.random.Generator
) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Return a live item of each topic that has one, and the expected draws of an item of each topic of the corpus."""
    carried = corpus.item_topics[live]  # (L, ITEM_TOPICS)
    rows, columns = np.nonzero(carried)
    topic_of = carried[rows, columns]
    order = np.argsort(topic_of, kind="stable")
    members = live[rows[order]]
    sizes = np.bincount(topic_of, minlength=len(corpus.topics) + 1)
    begins = np.cumsum(sizes) - sizes
    drawn = topics[(topics > 0) & (sizes[topics] > 0)]
    rate = np.bincount(drawn, minlength=len(sizes)) / np.maximum(sizes, 1)
    return members[begins[drawn] + (random.random(len(drawn)) * sizes[drawn]).astype(np.int64)], rate

"""Conditions, negatives and their sampling probabilities."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.corpus import Corpus

Ints = npt.NDArray[np.int64]
SMOOTHING = 0.1
CONDITION_WEIGHTS: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "random": np.ones_like,
    "popular": lambda share: share,
    "stratified": lambda share: 1.0 / np.maximum(share, 1e-9),
}
"""Name to the odds of topics, given their shares among a batch's items."""


@dataclass(frozen=True)
class SampledItems:
    """The items a batch is scored against.

    Attributes:
        items: (C,) unique numbers, the batch's positives among them.
        log_q: (C,) log of the probability that an item is among them (logQ correction).
        positives: (B,) position of each example's positive in `items`.
    """

    items: Ints
    log_q: npt.NDArray[np.float32]
    positives: Ints


def sample_conditions(
    corpus: Corpus,
    items: Ints,
    random: np.random.Generator,
    most: int = 1,
    sampling: str = "random",
    unconditioned: bool = False,
    held_out: float = 0.0,
) -> tuple[Ints, Ints]:
    """Draw up to `most` different topics of each item.

    Args:
        corpus: The items.
        items: (N,) numbers.
        random: Source of chance.
        most: Topics of one item.
        sampling: `random` draws each of an item's topics as likely; `popular` in proportion to the items that carry
            it; `stratified` in inverse proportion, so that narrow topics are asked for as often as broad ones.
        unconditioned: Ask for each item without a condition, too.
        held_out: Share of the topics that are never drawn, see `is_held_out`.

    Returns:
        rows (R,) of `items`, ascending, and topics (R,), 0 for no condition, as of an item without topics.
    """
    topics = corpus.item_topics[items]  # (N, T)
    if held_out:
        topics = np.where(is_held_out(topics, held_out), 0, topics)
    odds = CONDITION_WEIGHTS[sampling](np.bincount(topics.ravel()) / len(items))
    race = np.where(topics > 0, random.exponential(size=topics.shape) / odds[topics], np.inf)
    drawn = np.take_along_axis(topics, np.argsort(race, axis=1)[:, :most], axis=1)  # (N, most)
    asked = drawn > 0
    if unconditioned:
        drawn, asked = np.pad(drawn, ((0, 0), (0, 1))), np.pad(asked, ((0, 0), (0, 1)), constant_values=True)
    else:
        asked[:, 0] = True
    rows, columns = np.nonzero(asked)
    conditions: Ints = drawn[rows, columns]
    return rows, conditions


def is_held_out(topics: Ints, share: float) -> npt.NDArray[np.bool_]:
    """Return which topic numbers, of any shape, belong to a fixed share of all."""
    held_out: npt.NDArray[np.bool_] = (topics * 0x9E3779B1 % 2**32) < share * 2**32
    return held_out


def sample_items(
    corpus: Corpus,
    positives: Ints,
    conditions: Ints,
    live: Ints,
    popularity: npt.NDArray[np.float64] | Ints,
    random: np.random.Generator,
    uniform: int,
    same_condition: int,
) -> SampledItems:
    """Return the unique items of a batch: positives, uniform live negatives and same-condition negatives.

    Args:
        corpus: The items.
        positives: (B,) engaged items.
        conditions: (B,) their sampled topics; same-condition negatives are drawn from these topics.
        live: (L,) live items.
        popularity: By item number, proportional to the odds of being a positive.
        random: Source of chance.
        uniform: Number of uniform draws.
        same_condition: Number of same-condition draws.
    """
    uniformly = random.choice(live, uniform)
    matching, rate = _matching(corpus, random.choice(conditions, same_condition), live, random)
    items, positions = np.unique(np.concatenate((positives, uniformly, matching)), return_inverse=True)
    share = (popularity[items] + SMOOTHING) / (popularity[live] + SMOOTHING).sum()
    expected = share * len(positives) + uniform / len(live) + rate[corpus.item_topics[items]].sum(axis=1)
    log_q = np.log(-np.expm1(-expected)).astype(np.float32)
    return SampledItems(items, log_q, positions[: len(positives)])


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

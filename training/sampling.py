"""Conditions, negatives and their sampling probabilities."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from training.corpus import Corpus

Ints = npt.NDArray[np.int64]
Popularity = Callable[[Ints], npt.NDArray[np.float64] | Ints]
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


class LiveItems:
    """What negatives are drawn from: live items, all of them and those of each topic, as of a time.

    Args:
        corpus: The items.
        now_ms: Epoch ms.
        live_for_ms: See `Corpus.live`.
        popularity: Returns the popularity of item numbers (N,), proportional to the odds of being a positive.

    Attributes:
        numbers: (L,) of all live items.
        popularity: Of all of them together.
        sizes: By topic number, how many carry it.
    """

    def __init__(self, corpus: Corpus, now_ms: int, live_for_ms: int | None, popularity: Popularity) -> None:
        self.now_ms = now_ms
        self.numbers = corpus.live(now_ms, live_for_ms)
        self.popularity = float((popularity(self.numbers) + SMOOTHING).sum())
        self.sizes = np.zeros(len(corpus.topics) + 1, dtype=np.int64)
        self._members = _by_topic(corpus.item_topics, self.numbers, self.sizes)
        self._begins = np.cumsum(self.sizes) - self.sizes

    def draw(self, topics: Ints, random: np.random.Generator) -> Ints:
        """Return an item of each topic (N,); each topic must have one."""
        places = (random.random(len(topics)) * self.sizes[topics]).astype(np.int64)
        drawn: Ints = self._members[self._begins[topics] + places]
        return drawn


@njit("int64[::1](int64[:, ::1], int64[::1], int64[::1])", cache=True, nogil=True)
def _by_topic(item_topics: Ints, numbers: Ints, sizes: Ints) -> Ints:
    """Return the items of topic 1, then those of topic 2 and so on, each topic's in their order; add up `sizes` by topic."""
    for number in numbers:
        for topic in item_topics[number]:
            sizes[topic] += topic > 0
    ends = np.cumsum(sizes) - sizes
    members = np.empty(sizes.sum(), dtype=np.int64)
    for number in numbers:
        for topic in item_topics[number]:
            if topic > 0:
                members[ends[topic]] = number
                ends[topic] += 1
    return members


def sample_items(
    corpus: Corpus,
    positives: Ints,
    conditions: Ints,
    live: LiveItems,
    popularity: Popularity,
    random: np.random.Generator,
    uniform: int,
    same_condition: int,
) -> SampledItems:
    """Return the unique items of a batch: positives, uniform live negatives and same-condition negatives.

    Args:
        corpus: The items.
        positives: (B,) engaged items.
        conditions: (B,) their sampled topics; same-condition negatives are drawn from these topics.
        live: What negatives are drawn from.
        popularity: As `live` was given it.
        random: Source of chance.
        uniform: Number of uniform draws.
        same_condition: Number of rows drawn, each of which draws a live item of its condition, if it has one.
    """
    uniformly = random.choice(live.numbers, uniform)
    topics = random.choice(conditions, same_condition)
    topics = topics[live.sizes[topics] > 0]
    matching = live.draw(topics, random)
    rate = np.bincount(topics, minlength=len(live.sizes)) / np.maximum(live.sizes, 1)
    items, positions = np.unique(np.concatenate((positives, uniformly, matching)), return_inverse=True)
    share = (popularity(items) + SMOOTHING) / live.popularity
    expected = share * len(positives) + uniform / len(live.numbers) + rate[corpus.item_topics[items]].sum(axis=1)
    log_q = np.log(-np.expm1(-expected)).astype(np.float32)
    return SampledItems(items, log_q, positions[: len(positives)])

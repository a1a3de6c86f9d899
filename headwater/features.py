"""The encoding of users and items into tower inputs, the same for training and serving.

`FEATURE_SCHEMA` describes every tensor; its hash is in each bundle's manifest, and a bundle of another
schema is refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headwater.activity import HALF_LIVES_MS, WINDOWS
from headwater.covisit_features import COVISITS, DEPTH, SUCCESSORS
from headwater.covisit_features import HALF_LIVES_MS as COVISIT_HALF_LIVES_MS
from headwater.events import Item
from headwater.fold import HISTORY_LENGTH, TOPIC_HALF_LIFE_MS, UserState
from headwater.vocabulary import UNKNOWN, Vocabulary


class Indices(Protocol):
    """What numbers topics and items: a bundle's vocabulary, or the trainer's growing one."""

    @property
    def topic_index(self) -> Mapping[str, int]:
        """Topic to index, from 1."""
        ...

    @property
    def item_index(self) -> Mapping[str, int]:
        """Item id to index, from 1."""
        ...


HISTORY = 10
USER_TOPICS = 16
ITEM_TOPICS = 8
CONTEXT = 4
AGES_H = (0.25, 1.0, 6.0, 24.0)
HINGES = (0.7, 1.8, 3.0, 4.5)
BENT = (1, 2, 4)
LOGS = WINDOWS + 1
PLAIN = LOGS + 1 + len(AGES_H)
HINGED = PLAIN + len(BENT) * len(HINGES)
STREAMING = HINGED + len(BENT) * len(AGES_H)
HOUR_MS = 3_600_000.0

Features = dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]

FEATURE_SCHEMA = (
    f"v3 history={HISTORY}/{HISTORY_LENGTH} user_topics={USER_TOPICS}@{TOPIC_HALF_LIFE_MS} item_topics={ITEM_TOPICS} "
    f"context={CONTEXT} streaming=log1p{HALF_LIVES_MS}+log1p_total+log1p_age_h+exp_age{AGES_H}+{BENT}x{HINGES} "
    f"covisits={COVISITS}/{DEPTH}/{SUCCESSORS}@{COVISIT_HALF_LIVES_MS}"
)
FEATURE_SCHEMA_HASH = sha256(FEATURE_SCHEMA.encode()).hexdigest()[:16]

USER_INPUTS = {
    "history_items": ("int64", HISTORY),
    "history_ages": ("float32", HISTORY),
    "topic_ids": ("int64", USER_TOPICS),
    "topic_weights": ("float32", USER_TOPICS),
    "condition": ("int64", 0),
    "context": ("float32", CONTEXT),
}
"""User tower inputs: name to (dtype, width); a width of 0 means shape (B,)."""
ITEM_INPUTS = ("item", "topics")
"""Item tower inputs, see `encode_items`."""


@dataclass(frozen=True, slots=True)
class Query:
    """One row for the user tower: whom, about what (None asks without a condition)."""

    state: UserState
    topic: str | None


def encode_queries(queries: Sequence[Query], now_ms: int | Sequence[int], vocabulary: Indices) -> Features:
    """Return the user tower's inputs for B queries.

    Args:
        queries: B user states with their conditions.
        now_ms: Epoch ms of all queries, or of each.
        vocabulary: The bundle's.

    Returns:
        history_items (B, HISTORY) int64, newest first, 0 where unknown; history_ages (B, HISTORY)
        float32, log1p hours; topic_ids (B, USER_TOPICS) int64 and topic_weights float32, heaviest
        first; condition (B,) int64; context (B, CONTEXT) float32.
    """
    times = [now_ms] * len(queries) if isinstance(now_ms, int) else now_ms
    rows = [_encode(query, at_ms, vocabulary) for query, at_ms in zip(queries, times, strict=True)]
    columns = zip(*rows, strict=True) if rows else [()] * len(USER_INPUTS)
    return {
        name: np.array(column, dtype=dtype).reshape((len(rows), width) if width else len(rows))
        for (name, (dtype, width)), column in zip(USER_INPUTS.items(), columns, strict=True)
    }


def _encode(query: Query, now_ms: int, vocabulary: Indices) -> tuple[Sequence[int] | Sequence[float] | int, ...]:
    """Return one query's row of each of `USER_INPUTS`."""
    state, index = query.state, vocabulary.topic_index
    item_ids, times_ms = state.item_ids[: -HISTORY - 1 : -1], state.times_ms[: -HISTORY - 1 : -1]
    known = [(counter.at(now_ms), index[topic]) for topic, counter in state.topics if topic in index]
    known.sort(reverse=True)
    no_items, no_topics = [0] * (HISTORY - len(item_ids)), [0] * (USER_TOPICS - len(known))
    return (
        [vocabulary.item_index.get(item_id, UNKNOWN) for item_id in item_ids] + no_items,
        [_log_hours(now_ms - at_ms) for at_ms in times_ms] + no_items,
        [topic for _, topic in known] + no_topics,
        [math.log1p(weight) for weight, _ in known] + no_topics,
        UNKNOWN if query.topic is None else index.get(query.topic, UNKNOWN),
        _context(state, now_ms),
    )


def _context(state: UserState, now_ms: int) -> tuple[float, float, float, float]:
    hour = now_ms % 86_400_000 / 86_400_000 * 2 * math.pi
    since = _log_hours(now_ms - state.last_engaged_ms) if state.times_ms else 0.0
    return math.log1p(state.engagements), since, math.sin(hour), math.cos(hour)


def _log_hours(elapsed_ms: int) -> float:
    return math.log1p(max(elapsed_ms, 0) / HOUR_MS)


def encode_items(items: Sequence[Item], vocabulary: Vocabulary) -> Features:
    """Return the item tower's inputs for N items.

    Returns:
        item (N,) int64, 0 where untrained; topics (N, ITEM_TOPICS) int64, 0 where there are no more.
    """
    item = np.array([vocabulary.item_index.get(one.item_id, UNKNOWN) for one in items], dtype=np.int64)
    topics = np.zeros((len(items), ITEM_TOPICS), dtype=np.int64)
    for row, one in enumerate(items):
        known = [vocabulary.topic_index[topic] for topic in one.topics if topic in vocabulary.topic_index]
        topics[row, : min(len(known), ITEM_TOPICS)] = known[:ITEM_TOPICS]
    return {"item": item, "topics": topics}

"""Tower inputs, the same for training and serving, and the encoding of items; of queries see `query_features`.

`FEATURE_SCHEMA` describes every tensor; its hash is in each bundle's manifest, and a bundle of another
schema is refused.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headwater.activity import HALF_LIVES_MS, WINDOWS
from headwater.covisit_features import COVISITS, DEPTH, SUCCESSORS
from headwater.covisit_features import HALF_LIVES_MS as COVISIT_HALF_LIVES_MS
from headwater.events import Item
from headwater.user_state import HISTORY_LENGTH, TOPIC_HALF_LIFE_MS
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
AGES = 1 + len(AGES_H)
PLAIN = LOGS + 2 * AGES
HINGED = PLAIN + len(BENT) * len(HINGES)
STREAMING = HINGED + len(BENT) * len(AGES_H)
HOUR_MS = 3_600_000.0

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Features = dict[str, Floats | Ints]

FEATURE_SCHEMA = (
    f"v4 history={HISTORY}/{HISTORY_LENGTH} user_topics={USER_TOPICS}@{TOPIC_HALF_LIFE_MS} item_topics={ITEM_TOPICS} "
    f"context={CONTEXT} streaming=log1p{HALF_LIVES_MS}+log1p_total+log1p_age_h+exp_age{AGES_H}"
    f"of_publication,first_engagement+{BENT}x{HINGES} "
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
"""User tower inputs, see `query_features.encode_queries`: name to (dtype, width); a width of 0 means shape (B,)."""
ITEM_INPUTS = ("item", "topics")
"""Item tower inputs, see `encode_items`."""


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

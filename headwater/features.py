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
"""Newest items of a user."""
USER_TOPICS = 16
"""Heaviest topics of a user."""
ITEM_TOPICS = 8
"""Topics of an item."""
CONTEXT = 4
"""Count of engagements, age of the newest, and the time of day as a point on a circle."""
AGE_SCALES_H = (0.25, 1.0, 6.0, 24.0)
"""Hours in which the exponentials of an age fall to 1/e."""
HINGE_POINTS = (0.7, 1.8, 3.0, 4.5)
"""Logs of counts above which a hinge term begins to rise."""
HINGED_WINDOWS = (1, 2, 4)
"""Of `HALF_LIVES_MS`: the counts whose logs have hinge terms, and products with the exponentials of the age."""
# Layout of the streaming dimensions, see `streaming_features`: logs of counts and total; an age's log and exponentials,
# since publication and since the first engagement; hinge terms; products.
END_OF_LOGS = WINDOWS + 1
AGE_FEATURES = 1 + len(AGE_SCALES_H)
END_OF_AGES = END_OF_LOGS + 2 * AGE_FEATURES
END_OF_HINGES = END_OF_AGES + len(HINGED_WINDOWS) * len(HINGE_POINTS)
STREAMING = END_OF_HINGES + len(HINGED_WINDOWS) * len(AGE_SCALES_H)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Features = dict[str, Floats | Ints]

FEATURE_SCHEMA = (
    f"v4 history={HISTORY}/{HISTORY_LENGTH} user_topics={USER_TOPICS}@{TOPIC_HALF_LIFE_MS} item_topics={ITEM_TOPICS} "
    f"context={CONTEXT} streaming=log1p{HALF_LIVES_MS}+log1p_total+log1p_age_h+exp_age{AGE_SCALES_H}"
    f"of_publication,first_engagement+{HINGED_WINDOWS}x{HINGE_POINTS} "
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

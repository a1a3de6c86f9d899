"""A user's state: the fold computes it from engagements, towers and filters read it."""

import math
from itertools import repeat
from typing import NamedTuple

from headwater.durations import DAY_MS

HISTORY_LENGTH = 50
TOPIC_LIMIT = 16
TOPIC_HALF_LIFE_MS = 3 * DAY_MS
RECENT_EVENTS = 32
"""Event ids remembered per user, by which duplicates are recognised."""


class TopicCounters(NamedTuple):
    """Engagements with topics, halved every `TOPIC_HALF_LIFE_MS`; columns, since there are up to sixteen topics per user.

    Attributes:
        weights: Each decayed to its own time in `as_of_ms`.
    """

    topics: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    as_of_ms: tuple[int, ...] = ()

    def at(self, now_ms: int) -> dict[str, float]:
        """Return each topic's weight decayed to `now_ms`, undecayed where its own time is later."""
        times_ms = map(max, self.as_of_ms, repeat(now_ms))
        return dict(zip(self.topics, map(_decayed, self.weights, self.as_of_ms, times_ms), strict=True))


def _decayed(weight: float, as_of_ms: int, now_ms: int) -> float:
    return weight * math.exp2((as_of_ms - now_ms) / TOPIC_HALF_LIFE_MS)


NO_TOPICS = TopicCounters()


class UserState(NamedTuple):
    """One user's features, see `headwater.fold`.

    Attributes:
        item_ids, times_ms: The newest `HISTORY_LENGTH` engagements, oldest first by time of occurrence.
        topics: The `TOPIC_LIMIT` heaviest topic counters.
        engagements: Number of engagements ever folded.
    """

    item_ids: tuple[str, ...] = ()
    times_ms: tuple[int, ...] = ()
    topics: TopicCounters = NO_TOPICS
    engagements: int = 0


EMPTY = UserState()

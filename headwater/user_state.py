"""What is known of a user: what the fold makes of engagements, and towers and filters read."""

import math
from itertools import repeat
from typing import NamedTuple

from headwater.durations import DAY_MS

HISTORY_LENGTH = 50
TOPIC_LIMIT = 16
TOPIC_HALF_LIFE_MS = 3 * DAY_MS
RECENT_EVENTS = 32
"""Event ids by which a user's duplicates are found."""


class TopicCounters(NamedTuple):
    """Engagements with topics, halved every `TOPIC_HALF_LIFE_MS`: a column each, since there are sixteen per user.

    Attributes:
        weights: Decayed to the time of the topic in `as_of_ms`.
    """

    topics: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    as_of_ms: tuple[int, ...] = ()

    def at(self, now_ms: int) -> dict[str, float]:
        """Return each topic's weight decayed to `now_ms`, undecayed where it is of a later time."""
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

"""The one fold: user features as a pure function of a user's engagements.

The stream, the trainer (over the log, point in time) and the tests all call `fold`, so serving and
training cannot drift apart.
"""

import math
from bisect import bisect_right
from itertools import repeat
from typing import NamedTuple, TypeVar

from headwater.events import Engagement

HISTORY_LENGTH = 50
TOPIC_LIMIT = 16
TOPIC_HALF_LIFE_MS = 3 * 86_400_000
Past = TypeVar("Past")


class TopicCounters(NamedTuple):
    """Engagements with topics, halved every `TOPIC_HALF_LIFE_MS`: a column each, since there are sixteen a user.

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


NO_TOPICS = TopicCounters()


def _decayed(weight: float, as_of_ms: int, now_ms: int) -> float:
    return weight * math.exp2((as_of_ms - now_ms) / TOPIC_HALF_LIFE_MS)


class UserState(NamedTuple):
    """What is known of a user.

    Attributes:
        item_ids, times_ms: The newest `HISTORY_LENGTH` engagements, oldest first by time of occurrence.
        topics: The `TOPIC_LIMIT` heaviest topic counters.
        engagements: Number of engagements ever folded.
    """

    item_ids: tuple[str, ...] = ()
    times_ms: tuple[int, ...] = ()
    topics: TopicCounters = NO_TOPICS
    engagements: int = 0

    @property
    def last_engaged_ms(self) -> int:
        """Epoch ms of the newest engagement, 0 where there is none."""
        return self.times_ms[-1] if self.times_ms else 0


EMPTY = UserState()


def fold(state: UserState, engagement: Engagement, topics: tuple[str, ...]) -> UserState:
    """Return the state after one engagement; late ones take their place by time of occurrence.

    Args:
        state: The state before.
        engagement: What happened.
        topics: The engaged item's topics.
    """
    at_ms = engagement.occurred_at
    place = bisect_right(state.times_ms, at_ms)
    return UserState(
        item_ids=_inserted(state.item_ids, place, engagement.item_id),
        times_ms=_inserted(state.times_ms, place, at_ms),
        topics=_counted(state.topics, topics, at_ms) if topics else state.topics,
        engagements=state.engagements + 1,
    )


def _inserted(history: tuple[Past, ...], place: int, past: Past) -> tuple[Past, ...]:
    inserted: tuple[Past, ...] = (*history[:place], past, *history[place:])
    return inserted[-HISTORY_LENGTH:]


def _counted(counters: TopicCounters, topics: tuple[str, ...], at_ms: int) -> TopicCounters:
    names, weights, times_ms = list(counters.topics), list(counters.weights), list(counters.as_of_ms)
    for topic in topics:
        weight, as_of_ms = 1.0, at_ms
        if topic in names:
            place = names.index(topic)
            former, former_ms = weights.pop(place), times_ms.pop(place)
            del names[place]
            as_of_ms = max(at_ms, former_ms)
            weight = _decayed(former, former_ms, as_of_ms) + _decayed(1.0, at_ms, as_of_ms)
        names.append(topic)
        weights.append(weight)
        times_ms.append(as_of_ms)
    while len(names) > TOPIC_LIMIT:
        now = list(map(_decayed, weights, times_ms, repeat(max(times_ms))))
        lightest = now.index(min(now))  # of equals the one counted longest ago
        del names[lightest], weights[lightest], times_ms[lightest]
    return TopicCounters(tuple(names), tuple(weights), tuple(times_ms))

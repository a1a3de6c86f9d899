"""The one fold: user features as a pure function of a user's engagements.

The stream, the trainer (over the log, point in time) and the tests all call `fold`, so serving and
training cannot drift apart.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from headwater.events import Engagement

HISTORY_LENGTH = 50
TOPIC_LIMIT = 16
TOPIC_HALF_LIFE_MS = 3 * 86_400_000
Past = TypeVar("Past")


class TopicCounter(NamedTuple):
    """Engagements with a topic, halved every `TOPIC_HALF_LIFE_MS`."""

    weight: float
    as_of_ms: int

    def at(self, now_ms: int) -> float:
        """Return the weight decayed to `now_ms`."""
        return self.weight * math.exp2((self.as_of_ms - now_ms) / TOPIC_HALF_LIFE_MS)


@dataclass(frozen=True, slots=True)
class UserState:
    """What is known of a user.

    Attributes:
        item_ids, times_ms: The newest `HISTORY_LENGTH` engagements, oldest first by time of occurrence.
        topics: The `TOPIC_LIMIT` heaviest topic counters.
        engagements: Number of engagements ever folded.
    """

    item_ids: tuple[str, ...] = ()
    times_ms: tuple[int, ...] = ()
    topics: tuple[tuple[str, TopicCounter], ...] = ()
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


def _counted(
    counters: tuple[tuple[str, TopicCounter], ...], topics: tuple[str, ...], at_ms: int
) -> tuple[tuple[str, TopicCounter], ...]:
    table = dict(counters)
    for topic in topics:
        counter = table.pop(topic, None)
        if counter is None:
            table[topic] = TopicCounter(1.0, at_ms)
        elif counter.as_of_ms <= at_ms:
            table[topic] = TopicCounter(counter.at(at_ms) + 1.0, at_ms)
        else:
            late = TopicCounter(1.0, at_ms).at(counter.as_of_ms)
            table[topic] = TopicCounter(counter.weight + late, counter.as_of_ms)
    if len(table) > TOPIC_LIMIT:
        lightest = sorted(table, key=lambda topic: (table[topic].at(at_ms), topic))
        for topic in lightest[: len(table) - TOPIC_LIMIT]:
            del table[topic]
    return tuple(table.items())

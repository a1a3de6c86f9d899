"""A small world with a known truth: drifting interests, items published live, skew and position bias."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from headwater.durations import HOUR_MS
from headwater.events import Engagement, Item

TASTE = 6
SLATE = 20
FADE_H = 6.0
LIFETIME_H = 48.0
SECOND_TOPIC_SHARE = 0.3


@dataclass
class World:
    """Users, topics and items; everything follows from the seed.

    Users hold interests in topics, which drift, and tastes. An item's appeal to a user is its quality,
    faded with age, plus the match of taste. A user picks a topic by interest, is shown the `SLATE` items
    most engaged with lately, and engages with one by appeal, less likely further down (position bias).

    Attributes:
        users, topics: Their numbers.
        items_per_hour, engagements_per_hour: Rates of event time.
    """

    seed: int = 0
    users: int = 5_000
    topics: int = 20
    items_per_hour: float = 60.0
    engagements_per_hour: float = 20_000.0
    start_ms: int = 1_700_000_000_000
    items: list[Item] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._interests = self._random.dirichlet(np.full(self.topics, 0.15), self.users)  # (users, topics)
        self._tastes = self._random.normal(size=(self.users, TASTE)) / np.sqrt(TASTE)
        activity = self._random.pareto(1.5, self.users) + 0.1
        self._activity = np.cumsum(activity / activity.sum())
        self._topic_share = self._random.dirichlet(np.full(self.topics, 1.0))
        self._quality = np.zeros(0)
        self._looks = np.zeros((0, TASTE))
        self._recent = np.zeros(0)
        self._members: list[list[int]] = [[] for _ in range(self.topics)]
        self._events = 0
        self.now_ms = self.start_ms

    def user_ids(self) -> list[str]:
        """Return every user's id."""
        return [f"user-{number}" for number in range(self.users)]

    def appeal(self, user: int, items: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the truth: how much each item (by number) appeals to a user now, higher is better."""
        age_h = np.array([(self.now_ms - self.items[number].published_at) / HOUR_MS for number in items])
        match: npt.NDArray[np.float64] = self._looks[items] @ self._tastes[user]
        return self._quality[items] - age_h / FADE_H + 1.5 * match

    def step(self, duration_ms: int) -> Iterator[Item | Engagement]:
        """Advance the world and yield what happens, in order of event time."""
        until_ms = self.now_ms + duration_ms
        hours = duration_ms / HOUR_MS
        self._drift(hours)
        self._retire(until_ms)
        publishing = set(self._moments(self.items_per_hour * hours, until_ms))
        engaging = self._moments(self.engagements_per_hour * hours, until_ms)
        for at_ms in sorted((*publishing, *engaging)):
            if at_ms in publishing:
                publishing.remove(at_ms)
                yield self._publish(at_ms)
                continue
            engagement = self._engage(at_ms)
            if engagement is not None:
                yield engagement
        self.now_ms = until_ms

    def _moments(self, expected: float, until_ms: int) -> list[int]:
        count = int(self._random.poisson(expected))
        return sorted(int(at) for at in self._random.integers(self.now_ms, until_ms, count))

    def _publish(self, at_ms: int) -> Item:
        number = len(self.items)
        count = 2 if self._random.random() < SECOND_TOPIC_SHARE else 1
        chosen = self._random.choice(self.topics, size=count, replace=False, p=self._topic_share)
        self._quality = np.append(self._quality, self._random.gumbel(0.0, 0.7))
        self._looks = np.vstack((self._looks, self._random.normal(size=(1, TASTE))))
        self._recent = np.append(self._recent, 1.0)
        for topic in chosen:
            self._members[topic].append(number)
        item = Item(
            item_id=f"item-{number}",
            topics=tuple(f"topic-{topic}" for topic in chosen),
            published_at=at_ms,
            attributes={"length": float(self._random.integers(100, 2000))},
        )
        self.items.append(item)
        return item

    def _drift(self, hours: float) -> None:
        self._recent *= 0.5**hours
        changing = self._random.random(self.users) < 0.02 * hours
        if changing.any():
            fresh = self._random.dirichlet(np.full(self.topics, 0.15), int(changing.sum()))
            self._interests[changing] = 0.5 * self._interests[changing] + 0.5 * fresh

    def _retire(self, now_ms: int) -> None:
        for topic, members in enumerate(self._members):
            self._members[topic] = [
                number for number in members if now_ms - self.items[number].published_at < LIFETIME_H * HOUR_MS
            ]

    def _engage(self, at_ms: int) -> Engagement | None:
        user = self._drawn(self._activity)
        topic = self._drawn(np.cumsum(self._interests[user]))
        members = np.array(self._members[topic], dtype=np.int64)
        if not len(members):
            return None
        slate = members[np.argsort(-self._recent[members])[:SLATE]]
        utility = self.appeal(user, slate) - np.log1p(np.arange(len(slate)))
        chosen = int(slate[np.argmax(utility + self._random.gumbel(size=len(slate)))])
        self._recent[chosen] += 1.0
        self._events += 1
        return Engagement(
            event_id=f"sim-{self.seed}-{self._events}",
            user_id=f"user-{user}",
            item_id=f"item-{chosen}",
            occurred_at=at_ms,
        )

    def _drawn(self, cumulative: npt.NDArray[np.float64]) -> int:
        return min(int(np.searchsorted(cumulative, self._random.random())), len(cumulative) - 1)

"""The trainer's item catalogue and item activity, as arrays that grow."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headwater.activity import HALF_LIVES_MS, NO_ENGAGEMENT_MS, WINDOWS
from headwater.covisits import Covisits
from headwater.events import Item
from headwater.features import ITEM_TOPICS
from headwater.streaming_features import streaming_features

NEVER = -(2**60)
FIRST_CAPACITY = 1024
ACTIVITY_ARRAYS = ("counts", "totals", "engaged_ms", "first_ms")
"""Arrays of a corpus that engagements change."""
RECORD_ARRAYS = ("alive", "read_ms")
"""Arrays of a corpus that records of items change and items do not hold."""
RECENT = 1
"""Of `HALF_LIVES_MS`: by a longer one rising items seem rarer than they are, and the towers learn to rank them lower."""
Ints = npt.NDArray[np.int64]


class Corpus:
    """All items ever seen, numbered from 1, with topics, times and decayed counts; 0 is no item.

    Implements `headwater.features.Indices`, so that examples are encoded once, in numbers that stay valid while the
    corpus grows.

    Attributes:
        items: The n-th item has number n + 1.
        topics: The n-th topic has number n + 1.
        item_topics: (capacity, ITEM_TOPICS) topic numbers, 0 where none.
        published_ms, engaged_ms, first_ms: (capacity,) publish time, newest and first engagement.
        alive: (capacity,) False after a tombstone, and once it is forgotten.
        read_ms: (capacity,) when its newest record was appended, or read where the log has no time.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.topics: list[str] = []
        self.item_index: dict[str, int] = {}
        self.topic_index: dict[str, int] = {}
        self.item_topics = np.zeros((FIRST_CAPACITY, ITEM_TOPICS), dtype=np.int64)
        self.published_ms = np.full(FIRST_CAPACITY, NEVER, dtype=np.int64)
        self.engaged_ms = np.full(FIRST_CAPACITY, NEVER, dtype=np.int64)
        self.first_ms = np.full(FIRST_CAPACITY, NO_ENGAGEMENT_MS, dtype=np.int64)
        self.alive = np.zeros(FIRST_CAPACITY, dtype=np.bool_)
        self.read_ms = np.full(FIRST_CAPACITY, NEVER, dtype=np.int64)
        self.counts = np.zeros((FIRST_CAPACITY, WINDOWS), dtype=np.float64)
        self.totals = np.zeros(FIRST_CAPACITY, dtype=np.int64)
        self.covisits = Covisits()
        self._positions = self._placed = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def put(self, item: Item, read_ms: int = NEVER) -> int:
        """Add or update an item and return its number."""
        number = self.item_index.get(item.item_id)
        if number is None:
            self.items.append(item)
            number = self.item_index[item.item_id] = len(self.items)
            if number >= len(self.alive):
                self._grow()
        else:
            self.items[number - 1] = item
        self.item_topics[number] = 0
        for column, topic in enumerate(item.topics[:ITEM_TOPICS]):
            self.item_topics[number, column] = self.add_topic(topic)
        self.published_ms[number] = item.published_at
        self.alive[number], self.read_ms[number] = True, read_ms
        return number

    def add_topic(self, topic: str) -> int:
        """Return a topic's number, a new one where it has none."""
        if topic not in self.topic_index:
            self.topics.append(topic)
            self.topic_index[topic] = len(self.topics)
        return self.topic_index[topic]

    def remove(self, item_id: str) -> None:
        """Note a tombstone."""
        number = self.item_index.get(item_id)
        if number is not None:
            self.alive[number] = False

    def forget(self, before_ms: int) -> None:
        """Drop items without a record since a time, as the catalogue does, until there is one again."""
        self.alive &= self.read_ms >= before_ms

    def forget_activity(self, before_ms: int) -> None:
        """Drop the activity of items not engaged with since a time, as the feature store does."""
        old = np.flatnonzero((self.engaged_ms < before_ms) & (self.engaged_ms > NEVER))
        self.counts[old], self.totals[old] = 0.0, 0
        self.engaged_ms[old], self.first_ms[old] = NEVER, NO_ENGAGEMENT_MS

    def needed(self, since_ms: int) -> Ints:
        """Return the numbers of items that are alive, engaged with since a time, or co-visited since."""
        own = slice(1, len(self) + 1)
        used = np.flatnonzero(self.alive[own] | (self.engaged_ms[own] >= since_ms)) + 1
        return np.union1d(used, self.covisits.involved(self.covisits.active(since_ms)))

    def of(self, numbers: Ints, since_ms: int) -> "Corpus":
        """Return a corpus of these items alone, which have the numbers 1 to N there; see `needed`."""
        kept = Corpus()
        for topic in self.topics:
            kept.add_topic(topic)
        for number in numbers.tolist():
            kept.put(self.items[number - 1])
        for name in (*ACTIVITY_ARRAYS, *RECORD_ARRAYS):
            getattr(kept, name)[1 : len(numbers) + 1] = getattr(self, name)[numbers]
        kept.covisits = self.covisits.renumbered(self.covisits.active(since_ms), numbers)
        return kept

    def _grow(self) -> None:
        for name in ("item_topics", "published_ms", "engaged_ms", "first_ms", *RECORD_ARRAYS, "counts", "totals"):
            old = getattr(self, name)
            grown = np.full((2 * len(old), *old.shape[1:]), old[0], dtype=old.dtype)
            grown[: len(old)] = old
            setattr(self, name, grown)

    def count(self, items: Ints, times_ms: Ints, predecessors: Ints) -> None:
        """Count engagements: items (N,) numbers, times (N,) epoch ms, predecessors (N, DEPTH); in any order."""
        self.covisits.count(items, times_ms, predecessors)
        touched = np.unique(items)
        newest = self.engaged_ms[touched].copy()
        np.maximum.at(self.engaged_ms, items, times_ms)
        np.minimum.at(self.first_ms, items, times_ms)
        elapsed = np.minimum(self.engaged_ms[touched] - newest, 2**40)
        rates = -1.0 / np.asarray(HALF_LIVES_MS, dtype=np.float64)
        self.counts[touched] *= np.exp2(elapsed[:, None] * rates)
        late = self.engaged_ms[items] - times_ms
        np.add.at(self.counts, items, np.exp2(late[:, None] * rates))
        np.add.at(self.totals, items, 1)

    def activity(self) -> "Activity":
        """Return a copy of the activity, for `restore`."""
        return Activity({name: getattr(self, name).copy() for name in ACTIVITY_ARRAYS}, deepcopy(self.covisits))

    def restore(self, activity: "Activity") -> None:
        """Set the activity back; items added since have none."""
        self.covisits = deepcopy(activity.covisits)
        for name in ACTIVITY_ARRAYS:
            kept, target = activity.arrays[name], getattr(self, name)
            target[: len(kept)] = kept
            target[len(kept) :] = kept[0]

    def live(self, now_ms: int, live_for_ms: int | None) -> Ints:
        """Return the numbers of all live items, see `are_live`."""
        return np.flatnonzero(self.are_live(slice(0, len(self) + 1), now_ms, live_for_ms))

    def are_live(self, items: Ints | slice, now_ms: int, live_for_ms: int | None) -> npt.NDArray[np.bool_]:
        """Return which items are published by now, not deleted, and published or engaged with lately."""
        live: npt.NDArray[np.bool_] = self.alive[items] & (self.published_ms[items] <= now_ms)
        if live_for_ms is not None:
            live &= self._recency_ms(items) >= now_ms - live_for_ms
        return live

    def most_recent(self, most: int) -> Ints:
        """Return the numbers, ascending, of the items that were published or engaged with last; at most so many."""
        numbers = np.flatnonzero(self.alive)
        if len(numbers) <= most:
            return numbers
        newest = np.argpartition(self._recency_ms(numbers), len(numbers) - most)[len(numbers) - most :]
        return np.sort(numbers[newest])

    def _recency_ms(self, items: Ints | slice) -> Ints:
        """Return when items were published or engaged with last."""
        return np.maximum(self.published_ms[items], self.engaged_ms[items])

    def streaming(self, items: Ints, now_ms: int) -> npt.NDArray[np.float32]:
        """Return the streaming features (N, STREAMING) of items at a time not before their last engagement."""
        counts = self.counts[items].astype(np.float32)
        engaged_ms, first_ms = self.engaged_ms[items], self.first_ms[items]
        return streaming_features(counts, self.totals[items], engaged_ms, first_ms, self.published_ms[items], now_ms)

    def popularity(self, items: Ints, now_ms: int) -> npt.NDArray[np.float64]:
        """Return items' recent engagements (N,), undecayed where one is later than `now_ms`."""
        elapsed = np.clip(now_ms - self.engaged_ms[items], 0, 2**40)
        recent: npt.NDArray[np.float64] = self.counts[items, RECENT] * np.exp2(-elapsed / HALF_LIVES_MS[RECENT])
        return recent

    def positions(self, items: Ints) -> Ints:
        """Return the position of each item number in `items`, -1 where it is not there; valid until the next call."""
        if len(self._positions) <= len(self):
            self._positions = np.full(len(self.alive), -1, dtype=np.int64)
        self._positions[self._placed] = -1
        self._positions[items], self._placed = np.arange(len(items)), items
        return self._positions

    def has_topic(self, items: Ints, topic: int) -> npt.NDArray[np.bool_]:
        """Return which items (N,) carry a topic."""
        result: npt.NDArray[np.bool_] = (self.item_topics[items] == topic).any(axis=1)
        return result

    def numbers(self, item_ids: Iterable[str]) -> Ints:
        """Return item numbers, 0 for unknown ones."""
        return np.array([self.item_index.get(item_id, 0) for item_id in item_ids], dtype=np.int64)

    def topic_numbers(self, topics: Iterable[str]) -> Ints:
        """Return topic numbers, 0 for unknown ones."""
        return np.array([self.topic_index.get(topic, 0) for topic in topics], dtype=np.int64)


@dataclass(frozen=True)
class Activity:
    """A corpus' activity at one time: its arrays of `ACTIVITY_ARRAYS`, and its covisits."""

    arrays: Mapping[str, npt.NDArray[Any]]
    covisits: Covisits

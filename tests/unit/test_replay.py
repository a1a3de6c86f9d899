"""Replay: event time passes at the chosen speed from the first engagement on."""

from typing import Any

import pytest

from headwater import replay
from headwater.events import Engagement, Item
from headwater.replay import replay_events

START_MS = 1_700_000_000_000


class Clock:
    """A clock on which sending an item and taking items in last a while."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Producer:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: list[tuple[str, float]] = []

    def send_item(self, item: Item) -> None:
        self.clock.now += 10

    def send(self, engagement: Engagement) -> None:
        self.sent.append((engagement.event_id, self.clock.now))

    def flush(self) -> None:
        pass


def test_engagements_are_paced_from_the_first_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(replay, "time", clock)
    producer: Any = Producer(clock)
    events: list[Item | Engagement] = [
        Item(item_id="i", topics=(), published_at=START_MS),
        *(
            Engagement(event_id=f"e{second}", user_id="u", item_id="i", occurred_at=START_MS + second * 1000)
            for second in (0, 20, 40)
        ),
    ]
    *_, totals = replay_events(producer, events, 2.0, lambda: clock.sleep(30))
    first = producer.sent[0][1]
    assert [(event, at - first) for event, at in producer.sent] == [("e0", 0), ("e20", 10), ("e40", 20)]
    assert (totals.items, totals.engagements, totals.seconds) == (1, 3, 60)

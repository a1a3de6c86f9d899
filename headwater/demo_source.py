"""What the demo streams in: real news clicks where they are, otherwise a simulated world."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from headwater.datafiles import EngagementTable, read_engagements, read_items
from headwater.durations import DAY_MS, HOUR_MS
from headwater.events import Engagement, Item, now_ms
from headwater.replay import LEAD_MS, in_event_time, known_by
from headwater.simulator import World

NEWS = Path("../shared/data/globo")
NEWS_BEGIN_MS = 1_507_550_400_000
NEWS_HISTORY_H = 2
NEWS_LATER_H = 1
SIMULATED_HISTORY_H = 2
SIMULATED_LATER_H = 1
SHOWN_USERS = 2_000


class DemoSource(Protocol):
    """Two stretches of events, and whom and what to ask about afterwards."""

    name: str
    topics: list[str]
    users: list[str]

    @property
    def now_ms(self) -> int:
        """Event time at the end of what was yielded."""
        ...

    def history(self) -> Iterator[Item | Engagement]:
        """Yield what happened so far."""
        ...

    def later(self) -> Iterator[Item | Engagement]:
        """Yield what happens next."""
        ...


def _most(values: Iterator[str], count: int) -> list[str]:
    return [value for value, _ in Counter(values).most_common(count)]


@dataclass
class NewsSource:
    """Some hours of the news clicks, moved so that they end now, with the articles they can fall on."""

    table: EngagementTable
    items: list[Item]
    name: str = "real news clicks of Globo.com"

    def __post_init__(self) -> None:
        end = NEWS_BEGIN_MS + NEWS_HISTORY_H * HOUR_MS
        later = end + NEWS_LATER_H * HOUR_MS
        clicked = {each.item_id for each in self.table.events(NEWS_BEGIN_MS, later)}
        known = [
            item
            for item in self.items
            if item.published_at < later and (item.item_id in clicked or item.published_at > end - DAY_MS)
        ]
        topic_of = {item.item_id: item.topics[0] for item in known}
        history = list(self.table.events(NEWS_BEGIN_MS, end))
        self.topics = _most((topic_of[each.item_id] for each in history if each.item_id in topic_of), 5)
        self.users = _most((each.user_id for each in history), SHOWN_USERS)
        moved_ms = now_ms() - later
        self._begin, self._end, self._later = NEWS_BEGIN_MS + moved_ms, end + moved_ms, later + moved_ms
        self.table = replace(self.table, occurred_ms=self.table.occurred_ms + moved_ms)
        self.items = [item.model_copy(update={"published_at": item.published_at + moved_ms}) for item in known]

    @property
    def now_ms(self) -> int:
        return self._end

    def history(self) -> Iterator[Item | Engagement]:
        known = [item for item in self.items if item.published_at < self._end]
        return in_event_time(known, self.table.events(self._begin, self._end), LEAD_MS)

    def later(self) -> Iterator[Item | Engagement]:
        fresh = [item for item in self.items if item.published_at >= self._end]
        return in_event_time(fresh, self.table.events(self._end, self._later), LEAD_MS)


class SimulatedSource:
    """A simulated world, at a time that its events end now."""

    name = "a simulated world"

    def __init__(self, seed: int = 0) -> None:
        hours = SIMULATED_HISTORY_H + SIMULATED_LATER_H
        self._world = World(seed, start_ms=now_ms() - hours * HOUR_MS)
        self._history = list(self._world.step(SIMULATED_HISTORY_H * HOUR_MS))
        engagements = [each for each in self._history if isinstance(each, Engagement)]
        topic_of = {item.item_id: item.topics[0] for item in self._world.items}
        self.topics = _most((topic_of[each.item_id] for each in engagements), 5)
        self.users = _most((each.user_id for each in engagements), SHOWN_USERS)

    @property
    def now_ms(self) -> int:
        return self._world.now_ms

    def history(self) -> Iterator[Item | Engagement]:
        return iter(self._history)

    def later(self) -> Iterator[Item | Engagement]:
        return self._world.step(SIMULATED_LATER_H * HOUR_MS)


def choose_source(news: Path = NEWS) -> DemoSource:
    """Return the news where the data is, else a simulated world."""
    if (news / "engagements.parquet").is_file():
        table = read_engagements(news / "engagements.parquet")
        return NewsSource(table, known_by(read_items(news / "items.parquet"), table))
    return SimulatedSource()

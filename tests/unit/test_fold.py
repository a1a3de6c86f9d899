"""The fold: order of events, limits, and what it does beside a plain version of itself."""

import math
from bisect import bisect_right
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from headwater.events import Engagement
from headwater.fold import Outcome
from headwater.user_state import EMPTY, HISTORY_LENGTH, RECENT_EVENTS, TOPIC_HALF_LIFE_MS, TOPIC_LIMIT, UserState
from headwater.users import Placed, Users

START_MS = 1_700_000_000_000


def engagement(number: int, at_ms: int, item: int = 0, event: int | None = None) -> Engagement:
    event_id = f"e{number if event is None else event}"
    return Engagement(event_id=event_id, user_id="u", item_id=f"i{item}", occurred_at=START_MS + at_ms)


def folded(*log: Placed) -> UserState:
    users = Users()
    users.fold(log)
    return users.record("u").state


def at_times(times: list[int]) -> UserState:
    return folded(*(Placed(engagement(n, at_ms, n), ("t",), 0, n) for n, at_ms in enumerate(times)))


def test_history_is_in_order_of_time_and_keeps_the_newest() -> None:
    state = at_times(list(range(HISTORY_LENGTH + 5)))
    assert len(state.item_ids) == HISTORY_LENGTH
    assert state.item_ids[0] == "i5"
    assert state.engagements == HISTORY_LENGTH + 5


@given(st.lists(st.integers(0, 10**10), max_size=HISTORY_LENGTH, unique=True))
def test_late_events_take_their_place(times: list[int]) -> None:
    assert list(at_times(times).times_ms) == sorted(START_MS + at for at in times)


@given(st.permutations(range(0, 10**9, 10**8)))
def test_topic_weight_does_not_depend_on_order(times: list[int]) -> None:
    ordered, shuffled = at_times(sorted(times)), at_times(times)
    now_ms = START_MS + 10**9
    assert abs(ordered.topics.at(now_ms)["t"] - shuffled.topics.at(now_ms)["t"]) < 1e-9


def test_topic_weight_halves() -> None:
    assert at_times([0]).topics.at(START_MS + TOPIC_HALF_LIFE_MS) == {"t": 0.5}


def test_the_lightest_topics_are_dropped() -> None:
    log = [Placed(engagement(n, n * 3_600_000), (f"t{n}",), 0, n) for n in range(TOPIC_LIMIT + 3)]
    state = folded(*log)
    assert len(state.topics.topics) == TOPIC_LIMIT
    assert "t0" not in state.topics.topics


def test_an_engagement_of_long_ago_counts_least() -> None:
    log = [Placed(engagement(n, n), (f"t{n}",), 0, n) for n in range(TOPIC_LIMIT)]
    late = Placed(engagement(99, 946_684_800_000 - START_MS), ("new",), 0, 99)
    before, after = folded(*log), folded(*log, late)
    assert after.topics == before.topics
    assert after.topics.at(946_684_800_000) == dict.fromkeys(before.topics.topics, 1.0)
    assert after.engagements == TOPIC_LIMIT + 1


def test_what_came_before_each_engagement_is_told_newest_first() -> None:
    users = Users()
    log = [Placed(engagement(n, at_ms, n), (), 0, n) for n, at_ms in enumerate([10, 20, 30, 25, 5])]
    before = users.fold(log).before
    told = [[users.items.texts[number] for number in row if number] for row in before.tolist()]
    assert told == [[], ["i0"], ["i1", "i0"], ["i1", "i0"], []]


def test_earlier_rows_are_those_before_each_applied_engagement() -> None:
    users = Users()
    log = [Placed(engagement(n, n, n, event), (), 0, n) for n, event in enumerate([0, 0, 1])]
    result = users.fold(log, keep_earlier=True)
    assert result.outcomes.tolist() == [Outcome.APPLIED, Outcome.DUPLICATE, Outcome.APPLIED]
    assert result.earlier["engagements"][:2].tolist() == [0, 1]


def test_items_may_carry_more_topics_than_are_kept() -> None:
    log = [Placed(engagement(n, n), (f"t{n}",), 0, n) for n in range(TOPIC_LIMIT)]
    many = Placed(engagement(99, 99), tuple(f"m{n}" for n in range(60)), 0, 99)
    assert folded(*log, many).topics.topics == tuple(f"m{n}" for n in range(60 - TOPIC_LIMIT, 60))


class Plain(NamedTuple):
    """A user in plain Python: history as (time, item), topics as (name, weight, time), event ids, newest offset."""

    history: list[tuple[int, str]]
    topics: list[tuple[str, float, int]]
    events: list[str]
    newest: list[tuple[int, int]]

    def fold(self, placed: Placed) -> Outcome:
        event, at_ms = placed.engagement, placed.engagement.occurred_at
        if self.newest and self.newest[-1][0] == placed.partition and placed.position <= self.newest[-1][1]:
            return Outcome.REPEATED
        self.newest.append((placed.partition, placed.position))
        if event.event_id in self.events[-RECENT_EVENTS:]:
            return Outcome.DUPLICATE
        self.events.append(event.event_id)
        place = bisect_right([each[0] for each in self.history], at_ms)
        self.history.insert(place, (at_ms, event.item_id))
        del self.history[:-HISTORY_LENGTH]
        for topic in placed.topics:
            known = [each for each in self.topics if each[0] == topic]
            now_ms = max([at_ms, *(each[2] for each in known)])
            weight = sum([decayed(each[1], each[2], now_ms) for each in known], 0.0)
            self.topics[:] = [each for each in self.topics if each[0] != topic]
            self.topics.append((topic, weight + decayed(1.0, at_ms, now_ms), now_ms))
        while len(self.topics) > TOPIC_LIMIT:
            now_ms = max(each[2] for each in self.topics)
            self.topics.remove(min(self.topics, key=lambda each: decayed(each[1], each[2], now_ms)))
        return Outcome.APPLIED


def decayed(weight: float, as_of_ms: int, now_ms: int) -> float:
    return weight * math.exp2((as_of_ms - now_ms) / TOPIC_HALF_LIFE_MS)


LOG = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.one_of(st.integers(0, 2000), st.integers(0, 10**10)),
        st.lists(st.sampled_from([f"t{number}" for number in range(24)]), max_size=20),
        st.integers(0, 1),
        st.integers(-2, 2),
    ),
    max_size=90,
)


@given(LOG, st.integers(1, 90))
def test_it_is_the_plain_fold_in_any_batches(log: list[tuple[int, int, list[str], int, int]], at_once: int) -> None:
    placed = [
        Placed(engagement(n, at_ms, event, event), tuple(topics), partition, n + moved)
        for n, (event, at_ms, topics, partition, moved) in enumerate(log)
    ]
    users, plain = Users(), Plain([], [], [], [])
    outcomes = [
        outcome
        for start in range(0, len(placed), at_once)
        for outcome in users.fold(placed[start : start + at_once]).outcomes.tolist()
    ]
    assert outcomes == [plain.fold(each) for each in placed]
    state = users.record("u").state
    assert list(zip(state.times_ms, state.item_ids, strict=True)) == plain.history
    assert list(zip(*state.topics, strict=True)) == plain.topics
    assert state.engagements == len(plain.events)
    assert bool(placed) or state == EMPTY

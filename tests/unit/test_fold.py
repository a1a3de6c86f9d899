"""The fold: order of events, limits, purity."""

from hypothesis import given
from hypothesis import strategies as st

from headwater.events import Engagement
from headwater.fold import EMPTY, HISTORY_LENGTH, TOPIC_HALF_LIFE_MS, TOPIC_LIMIT, UserState, fold

START_MS = 1_700_000_000_000


def engagement(number: int, at_ms: int, item: int = 0) -> Engagement:
    return Engagement(event_id=f"e{number}", user_id="u", item_id=f"i{item}", occurred_at=at_ms)


def folded(times: list[int]) -> UserState:
    state = EMPTY
    for number, at_ms in enumerate(times):
        state = fold(state, engagement(number, START_MS + at_ms, number), ("t",))
    return state


def test_history_is_in_order_of_time_and_keeps_the_newest() -> None:
    state = folded(list(range(HISTORY_LENGTH + 5)))
    assert len(state.item_ids) == HISTORY_LENGTH
    assert state.item_ids[0] == "i5"
    assert state.engagements == HISTORY_LENGTH + 5


@given(st.lists(st.integers(0, 10**10), max_size=HISTORY_LENGTH, unique=True))
def test_late_events_take_their_place(times: list[int]) -> None:
    assert list(folded(times).times_ms) == sorted(START_MS + at for at in times)


@given(st.permutations(range(0, 10**9, 10**8)))
def test_topic_weight_does_not_depend_on_order(times: list[int]) -> None:
    ordered, shuffled = folded(sorted(times)), folded(times)
    now_ms = START_MS + 10**9
    assert abs(ordered.topics.at(now_ms)["t"] - shuffled.topics.at(now_ms)["t"]) < 1e-9


def test_topic_weight_halves() -> None:
    state = folded([0])
    assert state.topics.at(START_MS + TOPIC_HALF_LIFE_MS) == {"t": 0.5}


def test_the_lightest_topics_are_dropped() -> None:
    state = EMPTY
    for number in range(TOPIC_LIMIT + 3):
        state = fold(state, engagement(number, START_MS + number * 3_600_000), (f"t{number}",))
    assert len(state.topics.topics) == TOPIC_LIMIT
    assert "t0" not in state.topics.topics


def test_an_engagement_of_long_ago_counts_least() -> None:
    state = EMPTY
    for number in range(TOPIC_LIMIT):
        state = fold(state, engagement(number, START_MS + number), (f"t{number}",))
    late = fold(state, engagement(99, 946_684_800_000), ("new",))
    assert late.topics == state.topics
    assert late.topics.at(946_684_800_000) == dict.fromkeys(state.topics.topics, 1.0)
    assert late.engagements == TOPIC_LIMIT + 1


def test_fold_changes_nothing_it_is_given() -> None:
    before = folded([1, 2, 3])
    copy = UserState(before.item_ids, before.times_ms, before.topics, before.engagements)
    fold(before, engagement(9, START_MS), ("other",))
    assert before == copy

import math

import numpy as np
import pytest

from headwater.durations import HOUR_MS
from headwater.features import HISTORY, USER_INPUTS, USER_TOPICS
from headwater.query_features import Query, encode_queries
from headwater.user_state import EMPTY, TopicCounters, UserState
from headwater.vocabulary import Vocabulary

NOW_MS = 1_507_700_000_000
VOCABULARY = Vocabulary(("sport", "music", "news"), ("a", "b", "c"))


def test_histories_come_newest_first_with_their_ages() -> None:
    state = UserState(("a", "unknown", "c"), (NOW_MS - 3 * HOUR_MS, NOW_MS - HOUR_MS, NOW_MS + 5), engagements=7)
    features = encode_queries([Query(EMPTY, None), Query(state, "music")], NOW_MS, VOCABULARY)
    assert features["history_items"].tolist() == [[0] * HISTORY, [3, 0, 1] + [0] * (HISTORY - 3)]
    ages = [0.0, math.log1p(1), math.log1p(3)] + [0.0] * (HISTORY - 3)
    assert features["history_ages"][1] == pytest.approx(ages)
    assert features["condition"].tolist() == [0, 2]
    hour = NOW_MS % (24 * HOUR_MS) / (24 * HOUR_MS) * 2 * math.pi
    assert features["context"][0] == pytest.approx([0.0, 0.0, math.sin(hour), math.cos(hour)], abs=1e-6)
    assert features["context"][1, :2] == pytest.approx([math.log1p(7), 0.0])


def test_topics_come_heaviest_first_as_of_the_query() -> None:
    counters = TopicCounters(
        ("unknown", "sport", "news", "music"), (9.0, 1.0, 1.0, 6.0), (NOW_MS, NOW_MS, NOW_MS, NOW_MS - 3 * 24 * HOUR_MS)
    )
    features = encode_queries([Query(UserState(topics=counters), None)], [NOW_MS], VOCABULARY)
    assert features["topic_ids"].tolist() == [[2, 3, 1] + [0] * (USER_TOPICS - 3)]
    expected = [math.log1p(3), math.log1p(1), math.log1p(1)] + [0.0] * (USER_TOPICS - 3)
    assert features["topic_weights"][0] == pytest.approx(expected)


def test_a_query_before_its_topics_were_counted_takes_their_weights_as_they_are() -> None:
    counters = TopicCounters(("sport", "music"), (3.0, 1.0), (NOW_MS, NOW_MS - 3 * 24 * HOUR_MS))
    features = encode_queries([Query(UserState(topics=counters), None)], 946_684_800_000, VOCABULARY)
    assert features["topic_weights"][0, :2] == pytest.approx([math.log1p(3), math.log1p(1)])


def test_the_heaviest_of_too_many_topics_count() -> None:
    names = tuple(f"t{number}" for number in range(USER_TOPICS + 3))
    weights = tuple(float(1 + number % 17) for number in range(len(names)))
    state = UserState(topics=TopicCounters(names, weights, (NOW_MS,) * len(names)))
    features = encode_queries([Query(state, None)], NOW_MS, Vocabulary(names, ()))
    heaviest = sorted(zip(weights, range(1, len(names) + 1), strict=True), reverse=True)[:USER_TOPICS]
    assert features["topic_ids"].tolist() == [[number for _, number in heaviest]]
    assert features["topic_weights"][0] == pytest.approx([math.log1p(weight) for weight, _ in heaviest])


def test_a_row_does_not_depend_on_the_others_and_none_are_fine() -> None:
    random = np.random.default_rng(0)
    queries = [
        Query(
            UserState(
                tuple(random.choice(list("abcd"), length)),
                tuple(sorted(random.integers(NOW_MS - 10**9, NOW_MS, length).tolist())),
                TopicCounters(("music",), (float(random.random()),), (NOW_MS - int(random.integers(10**9)),)),
                length,
            ),
            "sport",
        )
        for length in (0, 1, 10, 30, 50)
    ]
    together = encode_queries(queries, NOW_MS, VOCABULARY)
    for row, query in enumerate(queries):
        alone = encode_queries([query], NOW_MS, VOCABULARY)
        for name in USER_INPUTS:
            assert np.array_equal(alone[name][0], together[name][row])
    for name, (dtype, width) in USER_INPUTS.items():
        nothing = encode_queries([], NOW_MS, VOCABULARY)[name]
        assert nothing.dtype == dtype
        assert nothing.shape == ((0, width) if width else (0,))

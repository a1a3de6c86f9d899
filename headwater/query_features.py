"""The encoding of queries into user tower inputs, compiled: every answer and every example needs it."""

import math
from collections.abc import Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from headwater.durations import DAY_MS, HOUR_MS
from headwater.features import CONTEXT, HISTORY, USER_INPUTS, USER_TOPICS, Features, Floats, Indices, Ints
from headwater.user_state import TOPIC_HALF_LIFE_MS, TOPIC_LIMIT, UserState
from headwater.vocabulary import UNKNOWN

_HOUR_MS, _DAY_MS = float(HOUR_MS), float(DAY_MS)  # compiled as 64-bit floats
_INTS = "int64[::1]"
UserColumns = tuple[Ints, Ints, Ints, Ints, Ints, Ints, npt.NDArray[np.float64], Ints]


class Query(NamedTuple):
    """One row for the user tower: a user, and the condition (None for none)."""

    state: UserState
    topic: str | None


def encode_queries(queries: Sequence[Query], now_ms: int | Sequence[int], vocabulary: Indices) -> Features:
    """Return the user tower's inputs for B queries.

    Args:
        queries: B user states with their conditions.
        now_ms: Epoch ms of all queries, or of each.
        vocabulary: The bundle's.

    Returns:
        history_items (B, HISTORY) int64, newest first, 0 where unknown; history_ages (B, HISTORY)
        float32, log1p hours; topic_ids (B, USER_TOPICS) int64 and topic_weights float32, heaviest
        first; condition (B,) int64; context (B, CONTEXT) float32.
    """
    states = [query.state for query in queries]
    histories = [state.item_ids[: -HISTORY - 1 : -1] for state in states]
    times_ms = [state.times_ms[: -HISTORY - 1 : -1] for state in states]
    counted = [state.topics for state in states]
    item_number, topic_number = vocabulary.item_index.get, vocabulary.topic_index.get
    condition = _ints([UNKNOWN if query.topic is None else topic_number(query.topic, UNKNOWN) for query in queries])
    columns = (
        _ints([state.engagements for state in states]),
        _ints(list(map(len, histories))),
        _ints(list(map(item_number, chain.from_iterable(histories), repeat(UNKNOWN)))),
        _ints(list(chain.from_iterable(times_ms))),
        _ints([len(each.topics) for each in counted]),
        _ints([topic_number(topic, UNKNOWN) for each in counted for topic in each.topics]),
        np.array(list(chain.from_iterable(each.weights for each in counted)), dtype=np.float64),
        _ints(list(chain.from_iterable(each.as_of_ms for each in counted))),
    )
    return _filled(condition, _ints([now_ms] * len(queries) if isinstance(now_ms, int) else now_ms), columns)


def encode_users(users: npt.NDArray[np.void], now_ms: Ints, items: Ints, topics: Ints) -> Features:
    """Return the user tower's inputs for the rows of `headwater.users`, without a condition, as `encode_queries` does.

    Args:
        users: (B,) of `headwater.fold.USER`.
        now_ms: (B,) epoch ms.
        items, topics: By number in the rows, the number in the vocabulary; `UNKNOWN` where it has none.
    """
    places = users["past"][:, None] - 1 - np.arange(HISTORY)  # newest first
    is_past, is_counted = places >= 0, np.arange(TOPIC_LIMIT) < users["counted"][:, None]
    places = np.maximum(places, 0)
    columns = (
        np.ascontiguousarray(users["engagements"]),
        is_past.sum(axis=1),
        items[np.take_along_axis(users["items"], places, axis=1)[is_past]],
        np.take_along_axis(users["times_ms"], places, axis=1)[is_past],
        np.ascontiguousarray(users["counted"]),
        topics[users["topics"][is_counted]],
        users["weights"][is_counted],
        users["as_of_ms"][is_counted],
    )
    return _filled(np.full(len(users), UNKNOWN), now_ms, columns)


def _filled(condition: Ints, now_ms: Ints, users: UserColumns) -> Features:
    """Return tower inputs; `users` are the arguments of `_fill` between `now_ms` and the outputs."""
    rows = len(condition)
    history_items, history_ages = np.zeros((rows, HISTORY), np.int64), np.zeros((rows, HISTORY), np.float32)
    topic_ids, topic_weights = np.zeros((rows, USER_TOPICS), np.int64), np.zeros((rows, USER_TOPICS), np.float32)
    context = np.zeros((rows, CONTEXT), np.float32)
    _fill(now_ms, *users, history_items, history_ages, topic_ids, topic_weights, context)
    inputs = history_items, history_ages, topic_ids, topic_weights, condition, context
    return dict(zip(USER_INPUTS, inputs, strict=True))


def _ints(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


@njit("float64(int64)", cache=True, nogil=True)
def _log_hours(elapsed_ms: int) -> float:
    return math.log1p(max(elapsed_ms, 0) / _HOUR_MS)


@njit(
    f"void({_INTS}, {_INTS}, {_INTS}, {_INTS}, {_INTS}, {_INTS}, {_INTS}, float64[::1], {_INTS}, "
    "int64[:, ::1], float32[:, ::1], int64[:, ::1], float32[:, ::1], float32[:, ::1])",
    cache=True,
    nogil=True,
)
def _fill(
    now_ms: Ints,
    engagements: Ints,
    pasts: Ints,
    items: Ints,
    items_ms: Ints,
    counted: Ints,
    topics: Ints,
    weights: npt.NDArray[np.float64],
    weighed_ms: Ints,
    history_items: Ints,
    history_ages: Floats,
    topic_ids: Ints,
    topic_weights: Floats,
    context: Floats,
) -> None:
    """Write B rows; each takes the next `pasts[row]` of `items`, newest first, and the next `counted[row]` of `topics`."""
    heaviest = np.empty(USER_TOPICS)
    item, counter = 0, 0
    for row in range(len(now_ms)):
        now = now_ms[row]
        context[row, 0] = math.log1p(engagements[row])
        context[row, 1] = _log_hours(now - items_ms[item]) if pasts[row] else 0.0
        hour = now % _DAY_MS / _DAY_MS * 2 * math.pi
        context[row, 2], context[row, 3] = math.sin(hour), math.cos(hour)
        for place in range(pasts[row]):
            history_items[row, place], history_ages[row, place] = items[item], _log_hours(now - items_ms[item])
            item += 1
        known = 0
        for _ in range(counted[row]):
            topic, age = topics[counter], max(now - weighed_ms[counter], 0)
            weight = weights[counter] * math.exp2(-age / TOPIC_HALF_LIFE_MS)
            counter += 1
            if topic == UNKNOWN:
                continue
            if known == USER_TOPICS:
                if (weight, topic) < (heaviest[known - 1], topic_ids[row, known - 1]):
                    continue
                known -= 1
            place = known
            while place and (weight, topic) > (heaviest[place - 1], topic_ids[row, place - 1]):
                heaviest[place], topic_ids[row, place] = heaviest[place - 1], topic_ids[row, place - 1]
                place -= 1
            heaviest[place], topic_ids[row, place] = weight, topic
            known += 1
        for place in range(known):
            topic_weights[row, place] = math.log1p(heaviest[place])

"""The one fold: user state as a function of engagements, compiled.

The stream, the trainer (over the log, point in time) and the tests all call `fold`, so serving and training cannot drift
apart. Here users are rows, and items and topics are numbers; `headwater.users` maps them to ids and names.
"""

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from numba import from_dtype, njit, types

from headwater.covisit_features import DEPTH
from headwater.user_state import HISTORY_LENGTH, RECENT_EVENTS, TOPIC_HALF_LIFE_MS, TOPIC_LIMIT

USER = np.dtype(
    [
        ("engagements", "i8"),  # number folded so far
        ("past", "i8"),  # filled places of the two below, oldest occurrence first
        ("items", "i4", HISTORY_LENGTH),
        ("times_ms", "i8", HISTORY_LENGTH),
        ("counted", "i8"),  # filled places of the three below, the topic counted longest ago first
        ("topics", "i4", TOPIC_LIMIT),
        ("weights", "f8", TOPIC_LIMIT),
        ("as_of_ms", "i8", TOPIC_LIMIT),
        ("seen", "i8"),  # filled places of the one below, oldest first
        ("events", "i8", RECENT_EVENTS),  # hashes of event ids
        ("partition", "i8"),  # of the newest applied Kafka record
        ("position", "i8"),  # of that record in the partition
    ],
    align=True,
)
"""A user's row; item and topic numbers start at 1."""

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.void]


class Outcome(IntEnum):
    """What became of one engagement.

    DUPLICATE: another record had the same event id. REPEATED: Kafka delivered an applied offset again.
    """

    APPLIED = 0
    DUPLICATE = 1
    REPEATED = 2


_APPLIED, _DUPLICATE, _REPEATED = map(int, Outcome)
_USER, _INT, _INTS = from_dtype(USER), types.int64, types.int64[::1]
_USERS, _WEIGHTS = types.Array(_USER, 1, "C"), types.float64[::1]


@njit(types.float64(types.float64, _INT, _INT), cache=True, nogil=True)
def _decayed(weight: float, as_of_ms: int, now_ms: int) -> float:
    return weight * math.exp2((as_of_ms - now_ms) / TOPIC_HALF_LIFE_MS)


@njit(types.void(_USERS, _INT, _INT, _INT), cache=True, nogil=True)
def _remember(users: Rows, row: int, item: int, at_ms: int) -> None:
    """Insert an engagement by time of occurrence; a full history loses its oldest one."""
    user = users[row]
    items, times_ms, place = user.items, user.times_ms, user.past
    while place and times_ms[place - 1] > at_ms:
        place -= 1
    if user.past < HISTORY_LENGTH:
        for later in range(user.past, place, -1):
            items[later], times_ms[later] = items[later - 1], times_ms[later - 1]
        user.past += 1
    else:
        place -= 1
        for earlier in range(place):
            items[earlier], times_ms[earlier] = items[earlier + 1], times_ms[earlier + 1]
    if place >= 0:
        items[place], times_ms[place] = item, at_ms


@njit(types.int64(_INT, _INT, _INTS, _WEIGHTS, _INTS), cache=True, nogil=True)
def _without(place: int, count: int, topics: Ints, weights: npt.NDArray[np.float64], as_of_ms: Ints) -> int:
    """Remove one of `count` topic counters and return how many are left."""
    for later in range(place, count - 1):
        topics[later], weights[later], as_of_ms[later] = topics[later + 1], weights[later + 1], as_of_ms[later + 1]
    return count - 1


@njit(types.void(_USERS, _INT, _INTS, _INT, _INTS, _WEIGHTS, _INTS), cache=True, nogil=True)
def _count(
    users: Rows, row: int, carried: Ints, at_ms: int, topics: Ints, weights: npt.NDArray[np.float64], as_of_ms: Ints
) -> None:
    """Count the topics that an item carries; the last three arguments are scratch space for a user's counters and these."""
    user = users[row]
    count = user.counted
    for place in range(count):
        topics[place], weights[place], as_of_ms[place] = user.topics[place], user.weights[place], user.as_of_ms[place]
    for topic in carried:
        weight, newest_ms, place = 1.0, at_ms, 0
        while place < count and topics[place] != topic:
            place += 1
        if place < count:
            newest_ms = max(at_ms, as_of_ms[place])
            weight = _decayed(weights[place], as_of_ms[place], newest_ms) + _decayed(1.0, at_ms, newest_ms)
            count = _without(place, count, topics, weights, as_of_ms)
        topics[count], weights[count], as_of_ms[count] = topic, weight, newest_ms
        count += 1
    while count > TOPIC_LIMIT:
        now_ms, lightest = as_of_ms[:count].max(), 0
        for place in range(count):  # among equals the one counted longest ago is removed
            if _decayed(weights[place], as_of_ms[place], now_ms) < _decayed(
                weights[lightest], as_of_ms[lightest], now_ms
            ):
                lightest = place
        count = _without(lightest, count, topics, weights, as_of_ms)
    for place in range(count):
        user.topics[place], user.weights[place], user.as_of_ms[place] = topics[place], weights[place], as_of_ms[place]
    user.counted = count


@njit(types.boolean(_USERS, _INT, _INT), cache=True, nogil=True)
def _is_new(users: Rows, row: int, event: int) -> bool:
    """Return whether an event is not among the last ones seen, and remember it if so."""
    user = users[row]
    for place in range(user.seen):
        if user.events[place] == event:
            return False
    if user.seen == RECENT_EVENTS:
        for place in range(RECENT_EVENTS - 1):
            user.events[place] = user.events[place + 1]
    else:
        user.seen += 1
    user.events[user.seen - 1] = event
    return True


@njit(types.void(_USERS, _INT, _INT, _INT, _INTS), cache=True, nogil=True)
def _precede(users: Rows, row: int, item: int, at_ms: int, before: Ints) -> None:
    """Write the items that precede a folded engagement in its user's history, newest first; none if it is no longer in there."""
    user = users[row]
    place = user.past - 1
    while place > 0 and (user.items[place] != item or user.times_ms[place] != at_ms):
        place -= 1
    for back in range(min(place, DEPTH)):
        before[back] = user.items[place - 1 - back]


@njit(types.void(_USERS, *[_INTS] * 9, types.int64[:, ::1], _USERS), cache=True, nogil=True)
def fold(
    users: Rows,
    rows: Ints,
    items: Ints,
    times_ms: Ints,
    events: Ints,
    partitions: Ints,
    positions: Ints,
    topics: Ints,
    topic_begins: Ints,
    outcomes: Ints,
    before: Ints,
    earlier: Rows,
) -> None:
    """Fold engagements into users, one after the other; late ones take their place by time of occurrence.

    Args:
        users: Rows of `USER`, changed in place.
        rows: (N,) row of the user who engaged.
        items: (N,) item numbers.
        times_ms: (N,) epoch ms of occurrence.
        events: (N,) hashes of event ids.
        partitions, positions: (N,) position in the log.
        topics: Topic numbers of all N items, one item after the other.
        topic_begins: (N + 1,) those of the n-th item are `topics[topic_begins[n] : topic_begins[n + 1]]`.
        outcomes: (N,) gets an `Outcome` each.
        before: (N, DEPTH) zeros; gets the items that the user engaged with just before, newest first.
        earlier: (N,) of `USER`, gets the user's row as it was before each applied engagement, compactly; (0,) if not wanted.
    """
    most = TOPIC_LIMIT + np.diff(topic_begins).max() if len(rows) else 0
    room, applied = (np.empty(most, np.int64), np.empty(most, np.float64), np.empty(most, np.int64)), 0
    for n in range(len(rows)):
        row, item, at_ms = rows[n], items[n], times_ms[n]
        if partitions[n] == users[row].partition and positions[n] <= users[row].position:
            outcomes[n] = _REPEATED
        else:
            if len(earlier):
                earlier[applied] = users[row]
            users[row].partition, users[row].position = partitions[n], positions[n]
            if not _is_new(users, row, events[n]):
                outcomes[n] = _DUPLICATE
                continue
            outcomes[n] = _APPLIED
            applied += 1
            users[row].engagements += 1
            _remember(users, row, item, at_ms)
            _count(users, row, topics[topic_begins[n] : topic_begins[n + 1]], at_ms, *room)
        _precede(users, row, item, at_ms, before[n])

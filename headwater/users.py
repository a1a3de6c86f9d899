"""Users as rows for the compiled fold, and the ids and names behind the numbers in them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.covisit_features import DEPTH
from headwater.events import Engagement
from headwater.fold import USER, Ints, Rows, fold
from headwater.texts import Texts
from headwater.user_encoding import encode_user_records
from headwater.user_record import EVENT_HASH_BYTES, UserRecord, decode_user_record, event_hash

FIRST_ROOM = 64
NEW_USER = np.zeros((), USER)
NEW_USER["partition"] = NEW_USER["position"] = -1


class Placed(NamedTuple):
    """An engagement, the topics that its item carries, and its position in the log."""

    engagement: Engagement
    topics: tuple[str, ...]
    partition: int
    position: int


class Folded(NamedTuple):
    """What became of N engagements.

    Attributes:
        rows: (N,) their users' rows.
        items: (N,) numbers in `Users.items`.
        times_ms, partitions, positions: (N,) when they occurred, and their positions in the log.
        outcomes: (N,) of `headwater.fold.Outcome`.
        before: (N, DEPTH) numbers in `Users.items` of what each user engaged with just before, newest first; 0 after the last.
        earlier: (N,) of `USER`: the users' rows before each applied engagement, compactly; (0,) unless asked for.
    """

    rows: Ints
    items: Ints
    times_ms: Ints
    partitions: Ints
    positions: Ints
    outcomes: Ints
    before: Ints
    earlier: Rows


class Users:
    """The state of users, as rows that the compiled fold changes.

    Attributes:
        rows: user_id to row.
        states: Rows of `USER`, with room after the last one.
        items, topics: Ids of items and names of topics by the numbers in the rows.
    """

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.states = np.empty(FIRST_ROOM, USER)
        self.items, self.topics = Texts(), Texts()

    def __len__(self) -> int:
        return len(self.rows)

    def newest_ms(self) -> list[int]:
        """Return when each user engaged last, epoch ms; 0 for a user without engagements."""
        states = self.states[: len(self)]
        newest = np.take_along_axis(states["times_ms"], np.maximum(states["past"] - 1, 0)[:, None], axis=1)[:, 0]
        found: list[int] = newest.tolist()
        return found

    def clear(self) -> None:
        """Forget all users, but keep the allocated rows."""
        self.rows.clear()
        self.items, self.topics = Texts(), Texts()

    def row(self, user_id: str) -> int:
        """Return a user's row, a new one for an unknown user."""
        row = self.rows.get(user_id)
        if row is None:
            row = self.rows[user_id] = len(self.rows)
            if row == len(self.states):
                self.states = np.concatenate((self.states, np.empty(max(row, FIRST_ROOM), USER)))
            self.states[row] = NEW_USER
        return row

    def fold(self, log: Sequence[Placed], *, keep_earlier: bool = False) -> Folded:
        """Fold engagements in their order in the log.

        Args:
            log: N engagements.
            keep_earlier: Also return each user's row as it was before each applied engagement.
        """
        engagements = [each.engagement for each in log]
        carried = [self.topics.numbers(each.topics) for each in log]
        events = _ints([int.from_bytes(event_hash(each.event_id), "little") for each in engagements])
        folded = Folded(
            _ints([self.row(each.user_id) for each in engagements]),
            _ints(self.items.numbers([each.item_id for each in engagements])),
            _ints([each.occurred_at for each in engagements]),
            _ints([each.partition for each in log]),
            _ints([each.position for each in log]),
            np.empty(len(log), np.int64),
            np.zeros((len(log), DEPTH), np.int64),
            np.empty(len(log) if keep_earlier else 0, USER),
        )
        rows, items, times_ms, partitions, positions, outcomes, before, earlier = folded
        topics, begins = _ints(list(chain.from_iterable(carried))), _ints([*accumulate(map(len, carried), initial=0)])
        fold(
            *(self.states, rows, items, times_ms, events, partitions, positions, topics, begins),
            *(outcomes, before, earlier),
        )
        return folded

    def encoded(self, rows: Sequence[int] | Ints) -> list[bytes]:
        """Return users' records as they are kept in Redis."""
        return encode_user_records(self.states, _ints(rows), self.items.encoded(), self.topics.encoded())

    def record(self, user_id: str) -> UserRecord:
        """Return a user's record, an empty one for an unknown user."""
        return decode_user_record(self.encoded([self.rows[user_id]])[0]) if user_id in self.rows else UserRecord()

    def put(self, records: Mapping[str, UserRecord]) -> None:
        """Set users' rows from their records."""
        if not records:
            return
        rows, users = _ints([self.row(user_id) for user_id in records]), self.states
        states, partitions, offsets, events = zip(*records.values(), strict=True)
        topics = [state.topics for state in states]
        past, counted = [len(state.item_ids) for state in states], [len(each.topics) for each in topics]
        parts = np.frombuffer(b"".join(events), np.uint8).reshape(-1, EVENT_HASH_BYTES)
        hashes = np.pad(parts, ((0, 0), (0, 8 - EVENT_HASH_BYTES))).view("<i8").ravel()
        seen = [len(each) // EVENT_HASH_BYTES for each in events]
        users["engagements"][rows] = [state.engagements for state in states]
        users["partition"][rows], users["position"][rows] = partitions, offsets
        users["past"][rows], users["counted"][rows], users["seen"][rows] = past, counted, seen
        for name, lengths, values in (
            ("items", past, self.items.numbers(chain.from_iterable(state.item_ids for state in states))),
            ("times_ms", past, list(chain.from_iterable(state.times_ms for state in states))),
            ("topics", counted, self.topics.numbers(chain.from_iterable(each.topics for each in topics))),
            ("weights", counted, list(chain.from_iterable(each.weights for each in topics))),
            ("as_of_ms", counted, list(chain.from_iterable(each.as_of_ms for each in topics))),
            ("events", seen, hashes),
        ):
            filled = np.arange(users[name].shape[1]) < np.array(lengths, np.int64)[:, None]
            padded = np.zeros(filled.shape, users[name].dtype)
            padded[filled] = values
            users[name][rows] = padded

    def kept(self, user_ids: Iterable[str]) -> "Users":
        """Return a copy of some users, with only the ids and names that occur in their rows."""
        users = Users()
        users.rows = {user_id: row for row, user_id in enumerate(user_ids)}
        users.states = self.states[[self.rows[user_id] for user_id in users.rows]]
        users.items = _renumbered(users.states["items"], self.items)
        users.topics = _renumbered(users.states["topics"], self.topics)
        return users


def _renumbered(numbers: npt.NDArray[np.int32], texts: Texts) -> Texts:
    """Return the texts whose numbers occur, and replace the numbers by the new ones; 0 stays 0."""
    fresh, used = Texts(), np.unique(numbers)
    fresh_numbers = np.zeros(len(texts) + 1, np.int32)
    fresh_numbers[used] = [fresh.number(texts.texts[number]) if number else 0 for number in used.tolist()]
    numbers[...] = fresh_numbers[numbers]
    return fresh


def _ints(values: Sequence[int] | Ints) -> npt.NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)

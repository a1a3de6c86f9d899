"""Point-in-time examples: what was known of a user just before each engagement."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.covisit_features import DEPTH
from headwater.events import Engagement
from headwater.features import Features
from headwater.fold import UserState
from headwater.query_features import Query, encode_queries
from headwater.successions import succession
from headwater.user_record import Outcome, UserRecord
from training.corpus import Corpus

Ints = npt.NDArray[np.int64]
ENCODED_AT_ONCE = 10_000


@dataclass(frozen=True)
class Examples:
    """N engagements in order of the log.

    Attributes:
        items: (N,) numbers in the corpus.
        times_ms: (N,) epoch ms.
        repeats: (N,) True where the user had engaged with the item before.
        predecessors: (N, DEPTH) what the user engaged with before that, newest first: the histories, but for late
            engagements, which take their place by time of occurrence.
        features: The user tower's inputs in the corpus' numbers; `condition` is still 0.
    """

    items: Ints
    times_ms: Ints
    repeats: npt.NDArray[np.bool_]
    predecessors: Ints
    features: Features

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: slice | Ints) -> "Examples":
        features = {name: values[rows] for name, values in self.features.items()}
        return Examples(self.items[rows], self.times_ms[rows], self.repeats[rows], self.predecessors[rows], features)

    @property
    def histories(self) -> Ints:
        """(N, HISTORY) items that the user tower sees, newest first."""
        return self.features["history_items"].astype(np.int64, copy=False)

    def in_time(self) -> "Examples":
        """Return the examples in order of time."""
        return self[np.argsort(self.times_ms, kind="stable")]

    @classmethod
    def joined(cls, parts: "list[Examples]") -> "Examples":
        """Return several parts as one."""
        names = parts[0].features
        return cls(
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.times_ms for part in parts]),
            np.concatenate([part.repeats for part in parts]),
            np.concatenate([part.predecessors for part in parts]),
            {name: np.concatenate([part.features[name] for part in parts]) for name in names},
        )


class Applied(NamedTuple):
    """An engagement that counts.

    Attributes:
        state: Of its user, before it.
        item: Its item's number.
        late: What came before it, where the user had engaged with something later already.
    """

    state: UserState
    item: int
    at_ms: int
    late: tuple[str, ...] | None


@dataclass(frozen=True)
class Logged:
    """An engagement and where it stood in the log."""

    engagement: Engagement
    partition: int
    offset: int


def build_examples(users: dict[str, UserRecord], corpus: Corpus, log: Iterable[Logged]) -> Examples:
    """Fold a stretch of the log into `users` and return an example of each applied engagement.

    Duplicates, repeated offsets and engagements with items the corpus does not know are left out, by the same code as
    in the stream. Items are read before engagements, so those that the stream refused because their item was not there
    yet, or no longer, are examples here.
    """
    folded = _folded(users, corpus, log)
    parts = [_encoded(corpus, [])]
    while part := list(islice(folded, ENCODED_AT_ONCE)):
        parts.append(_encoded(corpus, part))
    return Examples.joined(parts)


def _folded(users: dict[str, UserRecord], corpus: Corpus, log: Iterable[Logged]) -> Iterator[Applied]:
    for logged in log:
        engagement = logged.engagement
        number = corpus.item_index.get(engagement.item_id)
        if number is None:
            continue
        before = users.get(engagement.user_id) or UserRecord()
        topics = corpus.items[number - 1].topics
        after, outcome = before.apply(engagement, topics, logged.partition, logged.offset)
        users[engagement.user_id] = after
        if outcome is Outcome.APPLIED:
            is_late = engagement.occurred_at < before.state.last_engaged_ms
            late = succession(after.state, engagement, logged.offset).before if is_late else None
            yield Applied(before.state, number, engagement.occurred_at, late)


def _encoded(corpus: Corpus, folded: list[Applied]) -> Examples:
    items, times = np.array([(each.item, each.at_ms) for each in folded], dtype=np.int64).reshape(-1, 2).T
    features = encode_queries([Query(each.state, None) for each in folded], times.tolist(), corpus)
    repeats = [corpus.items[each.item - 1].item_id in each.state.item_ids for each in folded]
    predecessors = features["history_items"][:, :DEPTH].astype(np.int64)
    for row, each in enumerate(folded):
        if each.late is not None:
            predecessors[row] = 0
            predecessors[row, : len(each.late)] = corpus.numbers(each.late)
    return Examples(items, times, np.array(repeats, dtype=np.bool_), predecessors, features)

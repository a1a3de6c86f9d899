"""Point-in-time examples: what was known of a user just before each engagement."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.batched import batched
from headwater.events import Engagement
from headwater.features import Features
from headwater.fold import Outcome
from headwater.query_features import encode_users
from headwater.users import Placed, Users
from training.corpus import Corpus

Ints = npt.NDArray[np.int64]
FOLDED_AT_ONCE = 10_000


@dataclass(frozen=True)
class Examples:
    """N engagements in order of the log.

    Attributes:
        items: (N,) numbers in the corpus.
        times_ms: (N,) epoch ms.
        repeats: (N,) True where the user had engaged with the item before.
        predecessors: (N, DEPTH) what the user engaged with before that, newest first; for late engagements, too, which
            take their place by time of occurrence.
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


class Logged(NamedTuple):
    """An engagement and where it stood in the log."""

    engagement: Engagement
    partition: int
    offset: int


def build_examples(users: Users, corpus: Corpus, log: Iterable[Logged]) -> Examples:
    """Fold a stretch of the log into `users` and return an example of each applied engagement.

    Duplicates, repeated offsets and engagements with items the corpus does not know are left out, by the same code as
    in the stream. Items are read before engagements, so those that the stream refused because their item was not there
    yet, or no longer, are examples here.
    """
    parts = [_folded(users, corpus, [])]
    for part in batched(_placed(corpus, log), FOLDED_AT_ONCE):
        parts.append(_folded(users, corpus, part))
    return Examples.joined(parts)


def _placed(corpus: Corpus, log: Iterable[Logged]) -> Iterator[Placed]:
    for engagement, partition, offset in log:
        number = corpus.item_index.get(engagement.item_id)
        if number is not None:
            yield Placed(engagement, corpus.items[number - 1].topics, partition, offset)


def _folded(users: Users, corpus: Corpus, log: list[Placed]) -> Examples:
    folded = users.fold(log, keep_earlier=True)
    applied = np.flatnonzero(folded.outcomes == Outcome.APPLIED)
    earlier, items = folded.earlier[: len(applied)], folded.items[applied]
    times_ms = folded.times_ms[applied]
    repeats = (earlier["items"] == items[:, None]).any(axis=1)
    numbers, topics = corpus.numbers(users.items.texts), corpus.topic_numbers(users.topics.texts)
    features = encode_users(earlier, times_ms, numbers, topics)
    return Examples(numbers[items], times_ms, repeats, numbers[folded.before[applied]], features)

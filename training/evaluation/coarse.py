"""Coarse topics: topics grouped by who engages with them, so that items carry conditions of two widths."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headwater.datafiles import EngagementTable
from headwater.errors import UsageError
from headwater.events import MAX_TOPICS_PER_ITEM, Item

Floats = npt.NDArray[np.float64]
USERS_AT_ONCE = 10_000
DIRECTIONS = 20
STARTS = 10
ROUNDS = 100


def with_coarse_topics(
    items: Sequence[Item], engagements: EngagementTable, until_ms: int, groups: int, seed: int
) -> list[Item]:
    """Return the items with a second topic, `coarse-<n>`, after their first; items without a topic stay as they are.

    Topics whose engagements until `until_ms` come from the same users share a coarse topic.

    Raises:
        UsageError: no item has a topic.
    """
    first = {item.item_id: item.topics[0] for item in items if item.topics}
    if not first:
        raise UsageError("--coarse-topics needs items with topics")
    topics = {topic: number for number, topic in enumerate(sorted(set(first.values())))}
    group = grouped(_shared_users(engagements, first, topics, until_ms), groups, np.random.default_rng(seed))
    coarse = {topic: f"coarse-{group[number]}" for topic, number in topics.items()}
    return [
        item.model_copy(update={"topics": _with_second(item.topics, coarse[item.topics[0]])}) if item.topics else item
        for item in items
    ]


def _with_second(topics: tuple[str, ...], coarse: str) -> tuple[str, ...]:
    """Return the topics with the coarse one after the first; where these are too many, the last one makes room."""
    return (topics[0], coarse, *topics[1:])[:MAX_TOPICS_PER_ITEM]


def _shared_users(engagements: EngagementTable, first: dict[str, str], topics: dict[str, int], until_ms: int) -> Floats:
    """Return how alike the users of each two topics are, (T, T): cosine of log counts."""
    count = int(np.searchsorted(engagements.occurred_ms, until_ms))
    topic = np.array([topics.get(first.get(item_id, ""), -1) for item_id in engagements.item_ids[:count]])
    _, user = np.unique(engagements.user_ids[:count].astype(str), return_inverse=True)
    user, topic = user[topic >= 0], topic[topic >= 0]
    order = np.argsort(user, kind="stable")
    user, topic = user[order], topic[order]
    alike = np.zeros((len(topics), len(topics)))
    for begin in range(0, int(user.max(initial=-1)) + 1, USERS_AT_ONCE):
        rows = slice(*np.searchsorted(user, (begin, begin + USERS_AT_ONCE)))
        table = np.zeros((USERS_AT_ONCE, len(topics)))
        np.add.at(table, (user[rows] - begin, topic[rows]), 1.0)
        table = np.log1p(table)
        alike += table.T @ table
    norms = np.sqrt(np.maximum(np.diag(alike), 1e-12))
    return alike / norms[:, None] / norms


def grouped(alike: Floats, groups: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the group of each row: k-means over the leading directions of a similarity matrix (T, T)."""
    values, vectors = np.linalg.eigh(alike)
    points = vectors[:, -DIRECTIONS:] * np.sqrt(np.maximum(values[-DIRECTIONS:], 0.0))
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    groups = min(groups, len(points))
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(STARTS):
        centres = points[random.choice(len(points), groups, replace=False)]
        for _ in range(ROUNDS):
            distance = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
            nearest = distance.argmin(axis=1)
            moved = np.stack(
                [
                    points[nearest == each].mean(axis=0) if (nearest == each).any() else centres[each]
                    for each in range(groups)
                ]
            )
            if np.array_equal(moved, centres):
                break
            centres = moved
        spread = float(distance.min(axis=1).sum())
        if spread < least:
            best, least = nearest, spread
    return best

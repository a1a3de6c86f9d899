"""A query's way, top to bottom."""

import asyncio
import difflib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import orjson

from headwater.covisit_features import COVISITS, DEPTH
from headwater.delivered import Delivered
from headwater.errors import UnknownTopic
from headwater.events import iso
from headwater.index import Candidates, Relevance
from headwater.item_covisits import ItemCovisits
from headwater.query_features import Query, encode_queries
from headwater.stores import FeatureStore
from headwater.user_record import UserRecord
from headwater.user_state import EMPTY, UserState
from serving.candidate_json import candidates_json
from serving.clock import Clock
from serving.held import HeldGenerations, Pair

NEAR_MATCHES, NEAR_AMONG, LOOKED_AT = 3, 50, 5_000
"""Of topics of about the same length and beginning so many are compared with an unknown one, and so many are looked at."""
NEAR_LENGTH = 2
TURNS = 3
"""Of the event loop until redis-py has sent a command: the task that reads, and the one that waits no longer than it may."""
USERS_AT_ONCE = 256
NO_CANDIDATES = Candidates.of([], np.empty(0, dtype=np.float32))
Known = tuple[list[UserRecord | None], list[Delivered | None]]


@dataclass(frozen=True, slots=True)
class Filters:
    """What candidates must not be.

    Attributes:
        relevance: How the answer is held to its topic.
        engaged, delivered: Leave out what the user engaged with, and what was delivered.
        exclude: More item ids to leave out.
        max_age_ms: Leave out items published longer ago.
    """

    relevance: Relevance = Relevance.TOPIC
    engaged: bool = True
    delivered: bool = True
    exclude: frozenset[str] = frozenset()
    max_age_ms: int | None = None
    min_relevance: float = 0.5


class TopicQuery(NamedTuple):
    """Which k items of a topic a user should be notified about; None asks without a condition."""

    user_id: str
    topic: str | None
    k: int
    filters: Filters


class Answer(NamedTuple):
    """One user's candidates, and what produced them: the bundle of a version, the index generation of the same one."""

    user_id: str
    topic: str | None
    candidates: Candidates
    version: str
    generation: str
    watermark: str | None
    freshness_ms: int | None
    cold_start: bool

    def to_json(self, **more: object) -> bytes:
        """Return the answer, and `more`, as a `headwater.events.UserCandidates` in JSON."""
        document = {
            "user_id": self.user_id,
            "topic": self.topic,
            "bundle_version": self.version,
            "generation": self.generation,
            "watermark": self.watermark,
            "freshness_ms": self.freshness_ms,
            "cold_start": self.cold_start,
            **more,
        }
        return orjson.dumps(document)[:-1] + b',"candidates":[%b]}' % candidates_json(self.candidates)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Answers which items of a topic users should be notified about, now."""

    held: HeldGenerations
    store: FeatureStore
    covisits: ItemCovisits
    clock: Clock

    async def all_answers(
        self, user_ids: Sequence[str], topic: str | None, k: int, filters: Filters, pair: Pair
    ) -> AsyncIterator[list[Answer]]:
        """Yield answers for any number of users in their order, for `USERS_AT_ONCE` at a time; raises as `answers` does."""
        reading: asyncio.Task[Known] | None = None
        try:
            for start in range(0, len(user_ids), USERS_AT_ONCE):
                users, following = (user_ids[at : at + USERS_AT_ONCE] for at in (start, start + USERS_AT_ONCE))
                known = await (reading or self.store.users_and_delivered(users))
                if following:  # Redis looks them up while these are answered
                    reading = asyncio.create_task(self.store.users_and_delivered(following))
                    for _ in range(TURNS):
                        await asyncio.sleep(0)
                yield self._answers([TopicQuery(user_id, topic, k, filters) for user_id in users], known, pair)
        finally:
            if reading:
                reading.cancel()

    async def answers(self, queries: Sequence[TopicQuery], pair: Pair | None = None) -> list[Answer]:
        """Return one answer a query, in order; an unknown user gets a cold-start answer.

        Args:
            queries: B queries, all of them answered at the same time.
            pair: Answers, instead of the live one: for users who are asked for in several parts.

        Raises:
            NoLiveGeneration: nothing is promoted yet.
            UnknownTopic: no live item carries the topic of one of the queries; names near matches.
            RedisError: the feature store is away.
        """
        # 1. One pair for all: whatever is promoted meanwhile, tower and index stay of one version.
        pair = pair or self.held.live
        # 2. Features of all users in one round trip.
        known = await self.store.users_and_delivered([query.user_id for query in queries])
        return self._answers(queries, known, pair)

    def _answers(self, queries: Sequence[TopicQuery], known: Known, pair: Pair) -> list[Answer]:
        records, delivered = known
        now_ms = self.clock.now_ms()
        states = [record.state if record else EMPTY for record in records]
        # 3. User tower, and what co-visitation adds to single items.
        asked = [Query(state, _condition(query, pair)) for state, query in zip(states, queries, strict=True)]
        embeddings = pair.bundle.user_tower.embed(encode_queries(asked, now_ms, pair.bundle.vocabulary))
        dense, weights = embeddings[:, :-COVISITS], embeddings[:, -COVISITS:]  # (B, D + S), (B, COVISITS)
        added = self.covisits.scores([_newest(state) for state in states], weights, now_ms)
        # 4. Search; queries that ask the same share one matrix product.
        alike: dict[tuple[str | None, int, Filters], list[int]] = {}
        for place, query in enumerate(queries):
            alike.setdefault((query.topic, query.k, query.filters), []).append(place)
        found = [NO_CANDIDATES] * len(queries)
        for (topic, k, filters), places in alike.items():
            require_topic(pair, topic)
            candidates = pair.index.search(
                dense[places],
                k,
                topic,
                now_ms,
                relevance=filters.relevance,
                added=added.of(places),
                exclude=[_excluded(records[place], delivered[place], filters) for place in places],
                max_age_ms=filters.max_age_ms,
                min_relevance=filters.min_relevance,
            )
            for place, each in zip(places, candidates, strict=True):
                found[place] = each
        watermark_ms, freshness_ms = self.clock.watermark_ms, self.clock.freshness_ms()
        watermark, versions = iso(watermark_ms) if watermark_ms else None, (pair.bundle.version, pair.index.version)
        return [
            Answer(query.user_id, query.topic, candidates, *versions, watermark, freshness_ms, record is None)
            for query, candidates, record in zip(queries, found, records, strict=True)
        ]


def require_topic(pair: Pair, topic: str | None) -> None:
    """Raise `UnknownTopic` with near matches unless a live item carries the topic, or none is asked for."""
    if topic is not None and not pair.index.has_topic(topic):
        looked_at = islice(pair.index.topic_names(), LOOKED_AT)
        alike = (name for name in looked_at if name[:1] == topic[:1] and abs(len(name) - len(topic)) <= NEAR_LENGTH)
        raise UnknownTopic(topic, difflib.get_close_matches(topic, list(islice(alike, NEAR_AMONG)), n=NEAR_MATCHES))


def _condition(query: TopicQuery, pair: Pair) -> str | None:
    """Return the topic that the user tower hears.

    Inside an exact filter a condition that steers has nothing left to say, and would prefer items of few other topics;
    without it scores of different topics compare.
    """
    filtered = query.filters.relevance is Relevance.TOPIC
    return None if filtered and pair.bundle.manifest.topical else query.topic


def _newest(state: UserState) -> tuple[str, ...]:
    return state.item_ids[: -DEPTH - 1 : -1]


def _excluded(record: UserRecord | None, delivered: Delivered | None, filters: Filters) -> set[str]:
    excluded = set(filters.exclude)
    if filters.engaged and record:
        excluded.update(record.state.item_ids)
    if filters.delivered and delivered:
        excluded.update(delivered.item_ids)
    return excluded

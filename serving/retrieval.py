"""The steps of a query, top to bottom."""

import asyncio
import difflib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import NamedTuple

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
from serving.candidate_json import candidates_json, json_lines
from serving.clock import Clock
from serving.loaded import LoadedGenerations, ServingPair

NEAR_MATCHES = 3
"""Topics suggested for an unknown one at most."""
NEAR_COMPARED = 50
"""Topics of the same beginning and about the same length that are compared with an unknown one, at most."""
NEAR_SCANNED = 5_000
"""Topics looked at to find those, at most."""
NEAR_LENGTH = 2
"""Characters by which a topic that is compared may be longer or shorter."""
TURNS = 3
"""Turns of the event loop until redis-py has sent a command: it reads in a task, inside another one for its time-out."""
USERS_AT_ONCE = 256
Known = tuple[list[UserRecord | None], list[Delivered | None]]


@dataclass(frozen=True, slots=True)
class Filters:
    """What candidates must not be.

    Attributes:
        relevance: How the answer is restricted to its topic.
        exclude_engaged, exclude_delivered: Leave out items that the user engaged with, and that were delivered to the user.
        exclude: More item ids to leave out.
        max_age_ms: Leave out items published longer ago.
        min_relevance: Least cosine with the topic's centroid, for `Relevance.THRESHOLD`.
    """

    relevance: Relevance = Relevance.TOPIC
    exclude_engaged: bool = True
    exclude_delivered: bool = True
    exclude: frozenset[str] = frozenset()
    max_age_ms: int | None = None
    min_relevance: float = 0.5


class TopicQuery(NamedTuple):
    """Which k items of a topic a user should be notified about; None asks without a condition."""

    user_id: str
    topic: str | None
    k: int
    filters: Filters


class Provenance(NamedTuple):
    """What answers that were found together have in common; see `headwater.events.UserCandidates`."""

    topic: str | None
    bundle_version: str
    generation: str
    watermark: str | None
    freshness_ms: int | None


class Answer(NamedTuple):
    """One user's candidates, and what produced them: the bundle of a version, the index generation of the same one."""

    user_id: str
    candidates: Candidates
    cold_start: bool
    provenance: Provenance

    def to_json(self, **more: object) -> bytes:
        """Return the answer, and `more`, as a `headwater.events.UserCandidates` in JSON."""
        common = self.provenance._asdict()
        head = orjson.dumps({"user_id": self.user_id, **common, "cold_start": self.cold_start, **more})
        return head[:-1] + b',"candidates":[%b]}' % candidates_json(self.candidates)

    @staticmethod
    def to_lines(answers: "Sequence[Answer]") -> bytes:
        """Return answers as `to_json` does, a line each; quickest for those found together."""
        parts = []
        for _, alike in groupby(answers, lambda answer: (id(answer.candidates.pool), id(answer.provenance))):
            found_together = list(alike)
            parts.append(json_lines(_heads(found_together), [each.candidates for each in found_together]))
        return b"".join(parts)


def _heads(answers: Sequence[Answer]) -> list[bytes]:
    """Return what comes before the candidates of answers of one provenance, as JSON objects."""
    common = orjson.dumps(answers[0].provenance._asdict())[1:-1]
    ends = [b',%b,"cold_start":%b}' % (common, orjson.dumps(cold_start)) for cold_start in (False, True)]
    return [b'{"user_id":%b%b' % (orjson.dumps(each.user_id), ends[each.cold_start]) for each in answers]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Answers which items of a topic users should be notified about, now."""

    loaded: LoadedGenerations
    store: FeatureStore
    covisits: ItemCovisits
    clock: Clock

    async def all_answers(
        self, user_ids: Sequence[str], topic: str | None, k: int, filters: Filters, pair: ServingPair
    ) -> AsyncIterator[list[Answer]]:
        """Yield answers for any number of users in their order, for `USERS_AT_ONCE` at a time; raises as `answers` does."""
        reading: asyncio.Task[Known] | None = None
        try:
            for start in range(0, len(user_ids), USERS_AT_ONCE):
                users, following = (user_ids[at : at + USERS_AT_ONCE] for at in (start, start + USERS_AT_ONCE))
                known = await (reading or self.store.users_and_delivered(users))
                if following:  # Redis reads the next ones while these are answered
                    reading = asyncio.create_task(self.store.users_and_delivered(following))
                    for _ in range(TURNS):
                        await asyncio.sleep(0)
                yield self._answers([TopicQuery(user_id, topic, k, filters) for user_id in users], known, pair)
        finally:
            if reading:
                reading.cancel()

    async def answers(self, queries: Sequence[TopicQuery], pair: ServingPair | None = None) -> list[Answer]:
        """Return one answer per query, in order; an unknown user gets a cold-start answer.

        Args:
            queries: B queries, all of them answered at the same time.
            pair: Pair used instead of the live one, so that a job answered in parts sees one generation.

        Raises:
            NoLiveGeneration: nothing is promoted yet.
            UnknownTopic: no live item carries the topic of one of the queries; names near matches.
            RedisError: Redis is unavailable.
        """
        # 1. One pair for all: tower and index stay of one version, even if another one is promoted meanwhile.
        pair = pair or self.loaded.live
        # 2. Features of all users in one round trip.
        known = await self.store.users_and_delivered([query.user_id for query in queries])
        return self._answers(queries, known, pair)

    def _answers(self, queries: Sequence[TopicQuery], known: Known, pair: ServingPair) -> list[Answer]:
        records, delivered = known
        now_ms = self.clock.now_ms()
        states = [record.state if record else EMPTY for record in records]
        # 3. User tower, and what co-visitation adds to single items.
        asked = [Query(state, _condition(query, pair)) for state, query in zip(states, queries, strict=True)]
        embeddings = pair.bundle.user_tower.embed(encode_queries(asked, now_ms, pair.bundle.vocabulary))
        dense, weights = embeddings[:, :-COVISITS], embeddings[:, -COVISITS:]  # (B, D + S), (B, COVISITS)
        added = self.covisits.scores([_newest(state) for state in states], weights, now_ms)
        # 4. Search; queries with the same topic, k and filters share one matrix product.
        alike: dict[tuple[str | None, int, Filters], list[int]] = {}
        for place, query in enumerate(queries):
            alike.setdefault((query.topic, query.k, query.filters), []).append(place)
        answers: dict[int, Answer] = {}
        watermark_ms, freshness_ms = self.clock.watermark_ms, self.clock.freshness_ms()
        watermark, versions = iso(watermark_ms) if watermark_ms else None, (pair.bundle.version, pair.index.version)
        for (topic, k, filters), places in alike.items():
            require_topic(pair, topic)
            provenance = Provenance(topic, *versions, watermark, freshness_ms)
            found = pair.index.search(
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
            for place, candidates in zip(places, found, strict=True):
                user_id, is_cold = queries[place].user_id, records[place] is None
                answers[place] = Answer(user_id, candidates, is_cold, provenance)
        return [answers[place] for place in range(len(queries))]


def require_topic(pair: ServingPair, topic: str | None) -> None:
    """Raise `UnknownTopic` with near matches unless a live item carries the topic, or none is asked for."""
    if topic is not None and not pair.index.has_topic(topic):
        scanned = islice(pair.index.topic_names(), NEAR_SCANNED)
        alike = (name for name in scanned if name[:1] == topic[:1] and abs(len(name) - len(topic)) <= NEAR_LENGTH)
        raise UnknownTopic(topic, difflib.get_close_matches(topic, list(islice(alike, NEAR_COMPARED)), n=NEAR_MATCHES))


def _condition(query: TopicQuery, pair: ServingPair) -> str | None:
    """Return the condition given to the user tower; None inside an exact filter, where the topic is already enforced.

    There a steering condition would only prefer items that carry few other topics; without it, scores are comparable across
    topics. Other fusions keep their condition.
    """
    filtered = query.filters.relevance is Relevance.TOPIC
    return None if filtered and pair.bundle.manifest.topical else query.topic


def _newest(state: UserState) -> tuple[str, ...]:
    return state.item_ids[: -DEPTH - 1 : -1]


def _excluded(record: UserRecord | None, delivered: Delivered | None, filters: Filters) -> set[str]:
    excluded = set(filters.exclude)
    if filters.exclude_engaged and record:
        excluded.update(record.state.item_ids)
    if filters.exclude_delivered and delivered:
        excluded.update(delivered.item_ids)
    return excluded

"""A query's way, top to bottom."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headwater.bundle import FILTERED_PULL
from headwater.covisit_features import COVISITS, DEPTH
from headwater.delivered import Delivered
from headwater.errors import UnknownTopic
from headwater.events import iso
from headwater.features import Query, encode_queries
from headwater.fold import EMPTY, UserState
from headwater.index import Candidates, Relevance
from headwater.item_covisits import ItemCovisits
from headwater.stores import FeatureStore
from headwater.user_record import UserRecord
from serving.clock import Clock
from serving.held import HeldGenerations, Pair

NEAR_MATCHES = 3


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


@dataclass(frozen=True, slots=True)
class Answer:
    """One user's candidates, and what produced them."""

    user_id: str
    topic: str | None
    candidates: Candidates
    version: str
    watermark_ms: int
    freshness_ms: int | None
    cold_start: bool

    def document(self) -> dict[str, object]:
        """Return the answer as JSON-ready values, as in `headwater.events.UserCandidates`."""
        found = zip(self.candidates.item_ids, self.candidates.scores, strict=True)
        return {
            "user_id": self.user_id,
            "topic": self.topic,
            "candidates": [{"item_id": item_id, "score": round(score, 5)} for item_id, score in found],
            "bundle_version": self.version,
            "generation": self.version,
            "watermark": iso(self.watermark_ms) if self.watermark_ms else None,
            "freshness_ms": self.freshness_ms,
            "cold_start": self.cold_start,
        }


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Answers which items of a topic users should be notified about, now."""

    held: HeldGenerations
    store: FeatureStore
    covisits: ItemCovisits
    clock: Clock

    async def candidates(
        self, user_ids: Sequence[str], topic: str | None, k: int, filters: Filters, pair: Pair | None = None
    ) -> list[Answer]:
        """Return one answer a user, in order; an unknown user gets a cold-start answer.

        Args:
            user_ids: B users.
            topic: What the answer is about.
            k: Candidates a user.
            filters: What they must not be.
            pair: Answers, instead of the live one: for a query that is answered in several parts.

        Raises:
            NoLiveGeneration: nothing is promoted yet.
            UnknownTopic: no live item carries the topic; names near matches.
            RedisError: the feature store is away.
        """
        # 1. One pair for the whole query: whatever is promoted meanwhile, tower and index stay of one version.
        pair = pair or self.held.live
        require_topic(pair, topic)
        # 2. Features of all users in one round trip.
        records, delivered = await self.store.users_and_delivered(user_ids)
        now_ms = self.clock.now_ms()
        queries = [Query(record.state if record else EMPTY, topic) for record in records]
        # 3. User tower, and what co-visitation adds to single items.
        embeddings = pair.bundle.user_tower.embed(encode_queries(queries, now_ms, pair.bundle.vocabulary))
        dense, weights = np.split(embeddings, (embeddings.shape[1] - COVISITS,), axis=1)  # (B, D + S), (B, COVISITS)
        if topic is not None and filters.relevance is Relevance.TOPIC:
            dense[:, : pair.bundle.manifest.topical] *= FILTERED_PULL
        added = self.covisits.scores([_newest(query.state) for query in queries], weights, now_ms)
        # 4. Search.
        found = pair.index.search(
            dense,
            k,
            topic,
            now_ms,
            relevance=filters.relevance,
            added=added,
            exclude=[_excluded(*known, filters) for known in zip(records, delivered, strict=True)],
            max_age_ms=filters.max_age_ms,
            min_relevance=filters.min_relevance,
        )
        watermark_ms, freshness_ms = self.clock.watermark_ms, self.clock.freshness_ms()
        return [
            Answer(user_id, topic, candidates, pair.version, watermark_ms, freshness_ms, record is None)
            for user_id, candidates, record in zip(user_ids, found, records, strict=True)
        ]


def require_topic(pair: Pair, topic: str | None) -> None:
    """Raise `UnknownTopic` with near matches unless a live item carries the topic, or none is asked for."""
    if topic is not None and not pair.index.has_topic(topic):
        near = difflib.get_close_matches(topic, pair.index.topics(), n=NEAR_MATCHES)
        raise UnknownTopic(topic, near)


def _newest(state: UserState) -> list[str]:
    return [past.item_id for past in state.history[: -DEPTH - 1 : -1]]


def _excluded(record: UserRecord | None, delivered: Delivered | None, filters: Filters) -> set[str]:
    excluded = set(filters.exclude)
    if filters.engaged and record:
        excluded.update(past.item_id for past in record.state.history)
    if filters.delivered and delivered:
        excluded.update(delivered.item_ids)
    return excluded

"""Answers `candidate-requests` that come through Kafka."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from redis import RedisError

from headwater.errors import InvalidEvent, NoLiveGeneration, UnknownTopic
from headwater.events import CandidateRequest
from headwater.names import CANDIDATES
from headwater.wire import decode
from serving.loaded import ServingPair
from serving.retrieval import Filters, Retrieval
from streams.publisher import Publisher, PublishFailed, dead_letter_record
from streams.record import Outgoing, Record

MAX_REQUEST_BYTES = 1_000_000
WAIT_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Responder:
    """Turns each request into one `candidates` record per user; an impossible request is a dead letter.

    Attributes:
        filters: What candidates must not be, for every request.
    """

    retrieval: Retrieval
    publisher: Publisher
    filters: Filters

    async def apply(self, records: Sequence[Record]) -> None:
        """Answer a batch; the caller commits offsets after this returns.

        Raises:
            RedisError, PublishFailed, OSError: the same batch can be answered again.
        """
        for record in records:
            try:
                await self._answer(decode(CandidateRequest, record.value, record.headers, MAX_REQUEST_BYTES))
            except InvalidEvent as error:
                await self._reject(record, error)
            except UnknownTopic as error:
                await self._reject(record, InvalidEvent("unknown-topic", str(error)))
            except (RedisError, PublishFailed, OSError):
                raise
            except Exception as error:  # the next server would fail at it, too
                log.exception("request at %s/%d@%d", record.topic, record.partition, record.offset)
                await self._reject(record, InvalidEvent("unanswerable", f"{type(error).__name__}: {error}"))

    async def _reject(self, record: Record, error: InvalidEvent) -> None:
        await self.publisher.publish([dead_letter_record(record.rejected(error))])

    async def _live(self) -> ServingPair:
        """Return the live pair; requests wait until something is promoted, as Kafka keeps them."""
        while True:
            try:
                return self.retrieval.loaded.live
            except NoLiveGeneration:
                await asyncio.sleep(WAIT_S)

    async def _answer(self, request: CandidateRequest) -> None:
        """Publish each part before the next is answered, in memory independent of the number of users."""
        pair = await self._live()
        async for part in self.retrieval.all_answers(request.user_ids, request.topic, request.k, self.filters, pair):
            await self.publisher.publish(
                [
                    Outgoing(CANDIDATES, answer.user_id.encode(), answer.to_json(request_id=request.request_id))
                    for answer in part
                ]
            )

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
from serving.held import Pair
from serving.retrieval import Filters, Retrieval
from streams.publisher import Publisher, dead_letter_record
from streams.record import Outgoing, Record

MAX_REQUEST_BYTES = 1_000_000
WAIT_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Responder:
    """Turns each request into one `candidates` record a user; an impossible request is a dead letter.

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
                request = decode(CandidateRequest, record.value, record.headers, MAX_REQUEST_BYTES)
                outgoing = await self._answered(request)
            except InvalidEvent as error:
                outgoing = [dead_letter_record(record.rejected(error))]
            except UnknownTopic as error:
                outgoing = [dead_letter_record(record.rejected(InvalidEvent("unknown-topic", str(error))))]
            except (RedisError, OSError):
                raise
            except Exception as error:  # the next server would end at it, too
                log.exception("request at %s/%d@%d", record.topic, record.partition, record.offset)
                problem = InvalidEvent("unanswerable", f"{type(error).__name__}: {error}")
                outgoing = [dead_letter_record(record.rejected(problem))]
            await self.publisher.publish(outgoing)

    async def _live(self) -> Pair:
        """Return the live pair; requests wait until something is promoted, as Kafka keeps them."""
        while True:
            try:
                return self.retrieval.held.live
            except NoLiveGeneration:
                await asyncio.sleep(WAIT_S)

    async def _answered(self, request: CandidateRequest) -> list[Outgoing]:
        parts = self.retrieval.all_answers(request.user_ids, request.topic, request.k, self.filters, await self._live())
        return [
            Outgoing(CANDIDATES, answer.user_id.encode(), answer.to_json(request_id=request.request_id))
            async for answers in parts
            for answer in answers
        ]

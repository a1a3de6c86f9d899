"""Appends events received over HTTP to Kafka."""

import asyncio
from collections.abc import Callable, Sequence

from headwater.errors import DeliveryFailed, HeadwaterError, ServiceUnavailable
from headwater.producer import EngagementProducer

TIMEOUT_S = 15.0
MAX_WAITING = 1000

Send = Callable[[], None]
_Waiting = tuple[Sequence[Send], "asyncio.Future[None]"]


class Collector:
    """Appends each request's events and reports whether all of them are acknowledged.

    Requests that come while Kafka is being waited for share the next flush, and its failure: the producer counts
    failures of a flush, not of a request. So lost events are never reported as safe; sending safe ones again does
    no harm, since duplicates are dropped by event id.

    Args:
        producer: Used by one thread at a time, never by the event loop's.
        timeout_s: How long a request waits for Kafka.
    """

    def __init__(self, producer: EngagementProducer, timeout_s: float = TIMEOUT_S) -> None:
        self._producer = producer
        self._timeout_s = timeout_s
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None

    async def append(self, sends: Sequence[Send]) -> None:
        """Return once everything that `sends` append is acknowledged.

        Raises:
            DeliveryFailed: something is not, or not in time; all of it can be sent again.
            ServiceUnavailable: too many requests wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise ServiceUnavailable(f"{MAX_WAITING} requests wait for Kafka already; try again in a second")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((sends, done))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._drain())
        try:
            await asyncio.wait_for(done, self._timeout_s)
        except TimeoutError:
            raise DeliveryFailed(f"Kafka acknowledged nothing within {self._timeout_s:g} s; send it again") from None

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            failure: HeadwaterError | None = None
            try:
                await asyncio.to_thread(self._flush, batch)
            except HeadwaterError as error:
                failure = error
            except Exception as error:
                failure = DeliveryFailed(f"{type(error).__name__}: {error}")
            for _, done in batch:
                if not done.done():
                    _settle(done, failure)

    def _flush(self, batch: Sequence[_Waiting]) -> None:
        for sends, done in batch:
            if not done.done():
                for send in sends:
                    send()
        self._producer.flush()


def _settle(done: "asyncio.Future[None]", failure: HeadwaterError | None) -> None:
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)

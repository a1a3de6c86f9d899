"""Appending records through the Faust app's producer."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faust.exceptions import NotReady, ProducerSendError

from headwater.dead_letter import DeadLetter
from headwater.names import DEAD_LETTERS, Names
from streams.record import Outgoing

TRANSIENT = (KafkaError, ProducerSendError, NotReady, OSError)
"""Errors of the broker, the network, or a producer that is starting or stopping; others would recur, and so are not retried."""


class PublishFailed(Exception):
    """The broker did not acknowledge; the batch is tried again."""


class Publisher(Protocol):
    """Appends records and returns when the broker has them."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Append all records.

        Raises:
            PublishFailed: some were not acknowledged.
        """
        ...


class FaustPublisher:
    """Uses the app's own producer; topics are given without the namespace."""

    def __init__(self, app: Any, names: Names) -> None:
        self._app = app
        self._names = names

    async def publish(self, records: Sequence[Outgoing]) -> None:
        try:
            producer = await self._app.maybe_start_producer()
            sent = [
                await producer.send(
                    self._names.topic(record.topic), record.key, record.value, None, None, list(record.headers)
                )
                for record in records
            ]
            await asyncio.gather(*sent)
        except MessageSizeTooLargeError:
            raise
        except TRANSIENT as error:
            raise PublishFailed(f"{type(error).__name__}: {error}") from error


def dead_letter_record(letter: DeadLetter) -> Outgoing:
    """Return the `dead-letters` record of a dead letter."""
    return Outgoing(DEAD_LETTERS, letter.key, letter.sendable_value, tuple(letter.headers()))

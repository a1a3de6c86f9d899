"""What the publisher sends, and which faults it takes for passing ones."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RequestTimedOutError
from faust.exceptions import ProducerSendError

from headwater.errors import InvalidEvent
from headwater.names import Names
from streams.publisher import FaustPublisher, PublishFailed, dead_letter_record
from streams.record import Outgoing, Record


class Producer:
    """A producer without a broker; what it is given is checked by aiokafka first."""

    def __init__(self, fault: BaseException) -> None:
        self._fault = fault

    async def send(self, topic: str, key: bytes | None, value: bytes | None, *rest: Any) -> None:
        client = SimpleNamespace(_wait_on_metadata=self._fail)
        await AIOKafkaProducer.send(SimpleNamespace(client=client), topic, value, key=key)

    async def _fail(self, topic: str) -> None:
        raise self._fault


def publisher(fault: BaseException) -> FaustPublisher:
    async def started() -> Producer:
        return Producer(fault)

    return FaustPublisher(SimpleNamespace(maybe_start_producer=started), Names())


@pytest.mark.parametrize("fault", [RequestTimedOutError(), ProducerSendError(), TimeoutError(), ConnectionError()])
async def test_a_broker_that_is_away_is_asked_again(fault: Exception) -> None:
    with pytest.raises(PublishFailed):
        await publisher(fault).publish([Outgoing("dead-letters", b"k", b"v")])


async def test_what_would_fail_each_time_is_raised() -> None:
    with pytest.raises(AssertionError):
        await publisher(RequestTimedOutError()).publish([Outgoing("dead-letters", None, None)])
    with pytest.raises(MessageSizeTooLargeError):
        await publisher(MessageSizeTooLargeError()).publish([Outgoing("candidates", b"k", b"v")])


async def test_a_record_with_neither_key_nor_value_has_a_dead_letter_that_can_be_sent() -> None:
    letter = Record("engagements", 0, 7, None, None).rejected(InvalidEvent("empty", "the record has no value"))
    assert dead_letter_record(letter).value == b""
    with pytest.raises(PublishFailed):  # by the broker that is away, not by the client
        await publisher(RequestTimedOutError()).publish([dead_letter_record(letter)])

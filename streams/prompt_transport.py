"""A Faust transport whose consumers never wait long for records of some partitions while others have some.

aiokafka has one fetch at a time under way to a broker, of the partitions it holds no records of. One that comes free
meanwhile waits for that fetch to end, which takes the whole maximum wait where the others are idle: 1.5 s in Faust, and
there is no setting for it.
"""

from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

FETCH_MAX_WAIT_MS = 20


class PromptThread(AIOKafkaConsumerThread):
    """Creates consumers that wait briefly."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer


class PromptConsumer(Consumer):
    """Uses `PromptThread`."""

    def _new_consumer_thread(self) -> PromptThread:
        return PromptThread(self, loop=self.loop, beacon=self.beacon)


class PromptTransport(Transport):
    """Uses `PromptConsumer`."""

    Consumer = PromptConsumer

"""A Faust transport for brokers that hold a fetch for its whole maximum wait, as the embedded one does.

Kafka answers a fetch as soon as there is a record, so that Faust's fixed maximum of 1.5 s costs nothing there; the
embedded broker always waits it out, which would delay every record by that much.
"""

from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

FETCH_MAX_WAIT_MS = 10


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

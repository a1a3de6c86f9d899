"""The engagement and item log, read from saved offsets to the present end."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from headwater.errors import InvalidEvent
from headwater.events import now_ms
from headwater.frames import events_in, position
from headwater.intake import read_engagement, read_item
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.settings import Settings
from headwater.topics import unreachable
from training.corpus import Corpus
from training.examples import Logged

POLL_MS = 1000
MAX_POLL_RECORDS = 5000
SILENCE_S = 30.0
Offsets = dict[str, dict[int, int]]


@dataclass
class LogReader:
    """Reads what was appended since the last time.

    Attributes:
        offsets: Topic name without namespace to partition to the next offset to read.
        skipped: Records left out by reason; the stream made them dead letters.
    """

    settings: Settings
    offsets: Offsets = field(default_factory=lambda: {ITEMS: {}, ENGAGEMENTS: {}})
    skipped: Counter[str] = field(default_factory=Counter)

    def read_items(self, corpus: Corpus) -> int:
        """Take new and changed items into the corpus, tombstones too; return how many records."""
        count, read_ms, latest_ms = 0, now_ms(), self._latest_ms()
        for record in self._records(ITEMS):
            count += 1
            try:
                item_id, item = read_item(record.key, record.value, record.headers, latest_ms)
            except InvalidEvent as error:
                self.skipped[error.reason] += 1
                continue
            if item is None:
                corpus.remove(item_id)
            else:
                corpus.put(item, read_ms)
        return count

    def read_engagements(self) -> Iterator[Logged]:
        """Yield new engagements in the order of each partition."""
        latest_ms = self._latest_ms()
        for record in self._records(ENGAGEMENTS):
            for place, (key, value, headers) in enumerate(events_in(record.key, record.value, record.headers)):
                try:
                    engagement = read_engagement(key, value, headers, latest_ms)
                except InvalidEvent as error:
                    self.skipped[error.reason] += 1
                else:
                    yield Logged(engagement, record.partition, position(record.offset, place))

    def fits(self) -> bool:
        """Say whether the log reaches up to the offsets; one that does not was created anew, or lost its end."""
        with self._consumer() as consumer:
            return all(self._reaches(consumer, name) for name in self.offsets)

    def _reaches(self, consumer: Any, name: str) -> bool:
        partitions = self._partitions(consumer, name)
        ends = {each.partition: end for each, end in consumer.end_offsets(partitions).items()}
        return not ends or all(offset <= ends.get(number, 0) for number, offset in self.offsets[name].items())

    def _latest_ms(self) -> int:
        return now_ms() + self.settings.max_future_s * 1000

    def _records(self, name: str) -> Iterator[Any]:
        with self._consumer() as consumer:
            yield from self._until_end(consumer, name)

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        try:
            consumer = KafkaConsumer(
                **self.settings.kafka_options(),
                enable_auto_commit=False,
                max_poll_records=MAX_POLL_RECORDS,
                auto_offset_reset="earliest",
            )
        except (KafkaError, ValueError) as error:
            raise unreachable(self.settings, error) from None
        try:
            yield consumer
        except KafkaError as error:
            raise unreachable(self.settings, error) from None
        finally:
            consumer.close()

    def _partitions(self, consumer: Any, name: str) -> list[TopicPartition]:
        topic = self.settings.names.topic(name)
        return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]

    def _until_end(self, consumer: Any, name: str) -> Iterator[Any]:
        partitions = self._partitions(consumer, name)
        consumer.assign(partitions)
        first, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        offsets = self.offsets[name]
        for partition in partitions:
            consumer.seek(partition, max(offsets.get(partition.partition, 0), first[partition]))
        deadline = time.monotonic() + SILENCE_S
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for partition, records in consumer.poll(POLL_MS).items():
                for record in records:
                    if record.offset < ends[partition]:
                        offsets[partition.partition] = record.offset + 1
                        yield record
                deadline = time.monotonic() + SILENCE_S
            if time.monotonic() > deadline:
                silence = TimeoutError(f"no record of {name} for {SILENCE_S:g} s, before the end")
                raise unreachable(self.settings, silence)

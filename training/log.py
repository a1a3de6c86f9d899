"""The engagement and item log, read from saved offsets to the present end."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kafka import TopicPartition

from headwater.consumers import consuming, partitions_of, records_until
from headwater.errors import InvalidEvent
from headwater.events import now_ms
from headwater.frames import events_in, position
from headwater.intake import latest_ms, read_engagement, read_item
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.settings import Settings
from training.corpus import Corpus
from training.examples import Logged

MAX_POLL_RECORDS = 5000
PART_RECORDS = 200_000
"""Records, of one or many engagements each, that are examples in memory at the same time."""
Offsets = dict[str, dict[int, int]]
Ends = dict[TopicPartition, int]
"""Partition to offset."""


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
        count, read_ms, latest = 0, now_ms(), latest_ms(self.settings)
        for record in self._records(ITEMS):
            count += 1
            try:
                item_id, item = read_item(record.key, record.value, record.headers, latest)
            except InvalidEvent as error:
                self.skipped[error.reason] += 1
                continue
            if item is None:
                corpus.remove(item_id)
            else:
                corpus.put(item, read_ms)
        return count

    def unread_parts(self) -> list[Ends]:
        """Return where to stop while reading new engagements: after each `PART_RECORDS` records or so, and at the end.

        A part ends at about the same time in all partitions.
        """
        with consuming(self.settings) as consumer:
            partitions = partitions_of(consumer, self.settings.names.topic(ENGAGEMENTS))
            begins, ends = self._begins(ENGAGEMENTS, consumer, partitions), consumer.end_offsets(partitions)
        unread = {partition: max(0, ends[partition] - begin) for partition, begin in begins.items()}
        parts = max(1, math.ceil(sum(unread.values()) / PART_RECORDS))
        return [
            {partition: begins[partition] + count * part // parts for partition, count in unread.items()}
            for part in range(1, parts + 1)
        ]

    def read_engagements(self, ends: Ends | None = None) -> Iterator[Logged]:
        """Yield new engagements in the order of each partition, up to `ends` or the present end."""
        latest = latest_ms(self.settings)
        for record in self._records(ENGAGEMENTS, ends):
            for place, (key, value, headers) in enumerate(events_in(record.key, record.value, record.headers)):
                try:
                    engagement = read_engagement(key, value, headers, latest)
                except InvalidEvent as error:
                    self.skipped[error.reason] += 1
                else:
                    yield Logged(engagement, record.partition, position(record.offset, place))

    def fits(self) -> bool:
        """Say whether the log reaches up to the offsets; one that does not was created anew, or lost its end."""
        with consuming(self.settings) as consumer:
            return all(self._reaches(consumer, name) for name in self.offsets)

    def _reaches(self, consumer: Any, name: str) -> bool:
        partitions = partitions_of(consumer, self.settings.names.topic(name))
        ends = {each.partition: end for each, end in consumer.end_offsets(partitions).items()}
        return not ends or all(offset <= ends.get(number, 0) for number, offset in self.offsets[name].items())

    def _records(self, name: str, ends: Ends | None = None) -> Iterator[Any]:
        options = {"max_poll_records": MAX_POLL_RECORDS, "auto_offset_reset": "earliest"}
        with consuming(self.settings, **options) as consumer:
            partitions = partitions_of(consumer, self.settings.names.topic(name))
            consumer.assign(partitions)
            for partition, begin in self._begins(name, consumer, partitions).items():
                consumer.seek(partition, begin)
            for record in records_until(consumer, ends or consumer.end_offsets(partitions), self.settings):
                self.offsets[name][record.partition] = record.offset + 1
                yield record

    def _begins(self, name: str, consumer: Any, partitions: list[TopicPartition]) -> Ends:
        first = consumer.beginning_offsets(partitions)
        return {each: max(self.offsets[name].get(each.partition, 0), first[each]) for each in partitions}

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
PART = 200_000
"""Engagements that are examples in memory at the same time."""
Offsets = dict[str, dict[int, int]]
Ends = dict[TopicPartition, int]
"""Partition to offset."""


@dataclass
class LogReader:
    """Reads what was appended since the last time.

    Attributes:
        offsets: Topic name without namespace to partition to the next offset to read.
        skipped: Number of records left out, by reason; the stream made them dead letters.
        per_record: Engagements per record, on average of those read last.
    """

    settings: Settings
    offsets: Offsets = field(default_factory=lambda: {ITEMS: {}, ENGAGEMENTS: {}})
    skipped: Counter[str] = field(default_factory=Counter)
    per_record: float = 1.0

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
                corpus.put(item, record.timestamp if (record.timestamp or 0) > 0 else read_ms)
        return count

    def unread_until(self) -> Ends:
        """Return the present end of the engagements."""
        with consuming(self.settings) as consumer:
            ends: Ends = consumer.end_offsets(partitions_of(consumer, self.settings.names.topic(ENGAGEMENTS)))
        return ends

    def read_parts(self, ends: Ends) -> Iterator[Iterator[Logged]]:
        """Yield new engagements up to `ends` in parts of about `PART`, at most twice as many; read each before the next.

        A part ends at about the same time in all partitions, where records hold as many engagements as those before.
        """
        with consuming(self.settings) as consumer:
            first = consumer.beginning_offsets(list(ends))
        while unread := self._unread(first, ends):
            parts = math.ceil(sum(unread.values()) * self.per_record / PART)
            left = {partition: count - math.ceil(count / parts) for partition, count in unread.items()}
            yield self.read_engagements({each: ends[each] - left[each] for each in unread}, 2 * PART)

    def _unread(self, first: Ends, ends: Ends) -> Ends:
        """Return how many records of which partitions are not read yet; some of them may be gone."""
        begins = self._begins(ENGAGEMENTS, first)
        return {partition: ends[partition] - begin for partition, begin in begins.items() if begin < ends[partition]}

    def read_engagements(self, ends: Ends | None = None, at_most: float = math.inf) -> Iterator[Logged]:
        """Yield new engagements in the order of each partition, up to `ends` or the present end.

        Args:
            ends: Where to stop.
            at_most: Also stop after the record that brings them to this many.
        """
        latest, events = latest_ms(self.settings), 0
        for records, record in enumerate(self._records(ENGAGEMENTS, ends), start=1):
            found = events_in(record.key, record.value, record.headers)
            for index, (key, value, headers) in enumerate(found):
                try:
                    engagement = read_engagement(key, value, headers, latest)
                except InvalidEvent as error:
                    self.skipped[error.reason] += 1
                else:
                    yield Logged(engagement, record.partition, position(record.offset, index))
            events += len(found)
            self.per_record = events / records
            if events >= at_most:
                return

    def fits(self) -> bool:
        """Say whether the log reaches up to the offsets; one that does not was recreated, or lost its end."""
        with consuming(self.settings) as consumer:
            return all(self._reaches(consumer, name) for name in self.offsets)

    def _reaches(self, consumer: Any, name: str) -> bool:
        partitions = partitions_of(consumer, self.settings.names.topic(name))
        ends = {each.partition: end for each, end in consumer.end_offsets(partitions).items()}
        return not ends or all(offset <= ends.get(number, 0) for number, offset in self.offsets[name].items())

    def _records(self, name: str, ends: Ends | None = None) -> Iterator[Any]:
        options = {"max_poll_records": MAX_POLL_RECORDS, "auto_offset_reset": "earliest"}
        with consuming(self.settings, **options) as consumer:
            ends = ends or consumer.end_offsets(partitions_of(consumer, self.settings.names.topic(name)))
            consumer.assign(list(ends))
            for partition, begin in self._begins(name, consumer.beginning_offsets(list(ends))).items():
                consumer.seek(partition, begin)
            for record in records_until(consumer, ends, self.settings):
                self.offsets[name][record.partition] = record.offset + 1
                yield record
        for partition, end in ends.items():  # the last records before it may be gone
            self.offsets[name][partition.partition] = max(end, self.offsets[name].get(partition.partition, 0))

    def _begins(self, name: str, first: Ends) -> Ends:
        return {each: max(self.offsets[name].get(each.partition, 0), offset) for each, offset in first.items()}

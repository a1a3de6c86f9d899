"""The engagement and item log, read from saved offsets to the present end."""

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
Offsets = dict[str, dict[int, int]]
Ends = dict[TopicPartition, int]


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

    def engagements_end(self) -> Ends:
        """Return where the log of engagements ends now."""
        with consuming(self.settings) as consumer:
            partitions = partitions_of(consumer, self.settings.names.topic(ENGAGEMENTS))
            ends: Ends = consumer.end_offsets(partitions)
        return ends

    def read_engagements(self, ends: Ends | None = None) -> Iterator[Logged]:
        """Yield new engagements in the order of each partition, up to `ends` or the present end.

        Of `ends` that were asked for before items are read, all engagements are with items the stream knew as well.
        """
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
        offsets = self.offsets[name]
        options = {"max_poll_records": MAX_POLL_RECORDS, "auto_offset_reset": "earliest"}
        with consuming(self.settings, **options) as consumer:
            partitions = partitions_of(consumer, self.settings.names.topic(name))
            consumer.assign(partitions)
            first = consumer.beginning_offsets(partitions)
            for partition in partitions:
                consumer.seek(partition, max(offsets.get(partition.partition, 0), first[partition]))
            for record in records_until(consumer, ends or consumer.end_offsets(partitions), self.settings):
                offsets[record.partition] = record.offset + 1
                yield record

"""`headwater replay`: feed data files into Kafka, in event-time order, at a chosen speed."""

import heapq
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from headwater.consumers import consuming, partitions_of
from headwater.datafiles import EngagementTable, read_engagements, read_items
from headwater.durations import HOUR_MS
from headwater.events import Engagement, Item
from headwater.names import ITEMS
from headwater.options import parse_instant, parse_speed
from headwater.producer import EngagementProducer
from headwater.settings import Settings, read_settings

REPORT_EVERY_S = 1.0
LEAD_MS = HOUR_MS
ITEMS_TIMEOUT_S = 60.0
ITEMS_POLL_S = 0.1
SLEEP_AHEAD_S = 0.005


@dataclass(slots=True)
class Replayed:
    """What a replay sent."""

    items: int = 0
    engagements: int = 0
    first_ms: int = 0
    last_ms: int = 0
    seconds: float = 0.0


def in_event_time(
    items: Iterable[Item], engagements: Iterable[Engagement], lead_ms: int = 0
) -> Iterator[Item | Engagement]:
    """Yield items and engagements merged by time; an item precedes an engagement of the same instant.

    Args:
        items, engagements: Each in order of time.
        lead_ms: How much earlier items come. Kafka keeps no order between topics, so that at full speed an engagement
            would overtake an item published just before it.
    """
    return heapq.merge(items, engagements, key=lambda event: _order(event, lead_ms))


def known_by(items: list[Item], engagements: EngagementTable, until_ms: int | None = None) -> list[Item]:
    """Return items in the order in which they are known: when published or first engaged with, whichever is earlier."""
    first = engagements.first_engaged_ms()
    known = [
        item.model_copy(update={"published_at": min(item.published_at, first.get(item.item_id, item.published_at))})
        for item in items
    ]
    known.sort(key=lambda item: item.published_at)
    return [item for item in known if until_ms is None or item.published_at < until_ms]


def _order(event: Item | Engagement, lead_ms: int = 0) -> tuple[int, bool]:
    if isinstance(event, Item):
        return event.published_at - lead_ms, False
    return event.occurred_at, True


def wait_until_items_are_taken_in(settings: Settings, timeout_s: float = ITEMS_TIMEOUT_S) -> bool:
    """Wait until the stream workers consumed every item sent so far; return False after the time-out.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    topic = settings.names.topic(ITEMS)
    with consuming(settings, group_id=settings.names.stream_group()) as consumer:
        ends = consumer.end_offsets(partitions_of(consumer, topic))
        deadline = time.monotonic() + timeout_s
        while any((consumer.committed(partition) or 0) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                return False
            time.sleep(ITEMS_POLL_S)
        return True


def replay_events(
    producer: EngagementProducer,
    events: Iterable[Item | Engagement],
    speed: float | None = None,
    before_engagements: Callable[[], object] = lambda: None,
) -> Iterator[Replayed]:
    """Send events, yielding the running totals about once a second and at the end.

    Args:
        producer: Where to.
        events: In order of time.
        speed: Seconds of event time per second; None is as fast as possible.
        before_engagements: Called before the first engagement is sent, when all items before it are in Kafka.

    Raises:
        DeliveryFailed: the broker did not take some of them.
    """
    totals = Replayed()
    started = reported = origin = time.monotonic()
    for event in events:
        at_ms = _order(event)[0]
        if isinstance(event, Engagement) and not totals.engagements:
            producer.flush()
            before_engagements()
            totals.first_ms, origin = at_ms, time.monotonic()
        if speed is not None and isinstance(event, Engagement):
            _sleep_until(origin + (at_ms - totals.first_ms) / 1000 / speed)
        if isinstance(event, Item):
            producer.send_item(event)
            totals.items += 1
        else:
            producer.send(event)
            totals.engagements += 1
            totals.last_ms = at_ms
        if time.monotonic() - reported >= REPORT_EVERY_S:
            reported = time.monotonic()
            totals.seconds = reported - started
            yield totals
    producer.flush()
    totals.seconds = time.monotonic() - started
    yield totals


def _sleep_until(moment: float) -> None:
    ahead = moment - time.monotonic()
    if ahead > SLEEP_AHEAD_S:
        time.sleep(ahead)


@click.command()
@click.option("--engagements", required=True, type=click.Path(path_type=Path), help="Parquet, CSV or JSONL.")
@click.option("--items", type=click.Path(path_type=Path), help="Parquet, CSV or JSONL.")
@click.option("--speed", default="max", show_default=True, help="Event time over wall time, e.g. 60x, or max.")
@click.option("--from", "from_", metavar="TIME", help="Only engagements from this ISO 8601 time on.")
@click.option("--until", metavar="TIME", help="Only engagements and items before this ISO 8601 time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def replay(
    engagements: Path, items: Path | None, speed: str, from_: str | None, until: str | None, as_json: bool
) -> None:
    """Feed data files into Kafka, in event-time order, at a chosen speed."""
    factor = parse_speed(speed)
    from_ms, until_ms = parse_instant("--from", from_), parse_instant("--until", until)
    table = read_engagements(engagements)
    published = known_by(read_items(items) if items else [], table, until_ms)
    happened = table.events(from_ms, until_ms)
    settings, lead_ms = read_settings(), LEAD_MS if factor is None else 0
    with EngagementProducer(settings) as producer:
        totals = Replayed()
        events = in_event_time(published, happened, lead_ms)
        for totals in replay_events(producer, events, factor, lambda: _wait_for_items(settings)):
            if not as_json:
                rate = totals.engagements / max(totals.seconds, 1e-9)
                click.echo(f"{totals.items} items, {totals.engagements} engagements, {rate:,.0f} a second", err=True)
    if as_json:
        click.echo(json.dumps({"items": totals.items, "engagements": totals.engagements, "seconds": totals.seconds}))


def _wait_for_items(settings: Settings) -> None:
    if not wait_until_items_are_taken_in(settings):
        click.echo("the stream workers have not taken all items in; is `headwater stream` running?", err=True)

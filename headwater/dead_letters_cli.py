"""`headwater dead-letters`: look at unusable records, and send them again once the cause is fixed."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import click
from kafka import KafkaProducer
from kafka.errors import KafkaError

from headwater.consumers import consuming, partitions_of, records_until
from headwater.dead_letter import DeadLetter
from headwater.errors import DeliveryFailed
from headwater.events import iso
from headwater.names import DEAD_LETTERS, ITEMS, TOPICS
from headwater.settings import Settings, read_settings

SHOWN_BYTES = 120
SPARE = 1_000
"""Dead letters in memory beyond those to be shown, so that they need not be sorted again for each one."""


@click.group("dead-letters")
def dead_letters() -> None:
    """List unusable records, or replay them into their topics."""


reason_option = click.option("--reason", help="Only these, e.g. unknown-item.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dead_letters.command("list")
@reason_option
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Newest ones to show.")
@json_option
def list_dead_letters(reason: str | None, limit: int, as_json: bool) -> None:
    """Count unusable records by reason, each once, however many replays failed, and show the newest."""
    counts, newest = summed(read_dead_letters(read_settings(), reason), limit)
    if as_json:
        click.echo(json.dumps({"counts": counts, "newest": [_document(letter) for letter in newest]}))
        return
    for name, count in counts.most_common():
        click.echo(f"{count:>8}  {name}")
    for letter in newest:
        where = f"{letter.topic}/{letter.partition}@{letter.offset}"
        click.echo(f"{iso(letter.at_ms)}  {where}  {letter.reason}: {letter.error}")
        click.echo(f"          {(letter.value or b'')[:SHOWN_BYTES]!r}")
    if not newest:
        click.echo("no dead letters")


@dead_letters.command()
@reason_option
@click.option("--dry-run", is_flag=True, help="Say what would be sent, send nothing.")
@json_option
def replay(reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Append the original records to their topics again, each once, however many replays failed.

    An engagement that is applied already is dropped as a duplicate as long as it is among the last 32 events of its user. Of an
    item that has been sent again since, or deleted, nothing is replayed.
    """
    settings = read_settings()
    known = {settings.names.topic(name) for name in TOPICS} - {settings.names.topic(DEAD_LETTERS)}
    letters = [letter for letter in unique(read_dead_letters(settings, reason)) if letter.topic in known]
    outdated = outdated_items(settings, letters)
    letters = [letter for letter in letters if letter not in outdated]
    if not dry_run:
        _append(settings, letters)
    counts = Counter(letter.topic for letter in letters)
    if as_json:
        click.echo(json.dumps({"replayed": counts, "outdated": len(outdated), "dry_run": dry_run}))
    else:
        verb = "would replay" if dry_run else "replayed"
        click.echo(f"{verb} {len(letters)}: " + ", ".join(f"{count} into {topic}" for topic, count in counts.items()))
        if outdated:
            click.echo(f"{len(outdated)} items were sent again or deleted since, and are left out")


def unique(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Return the newest dead letter of each record, oldest first."""
    newest: dict[bytes, DeadLetter] = {}
    for letter in sorted(letters, key=lambda letter: letter.at_ms):
        newest.pop(letter.origin, None)
        newest[letter.origin] = letter
    return list(newest.values())


def summed(letters: Iterable[DeadLetter], limit: int) -> tuple[Counter[str], list[DeadLetter]]:
    """Return what `unique` would, counted by reason, and its newest `limit`; few more than these are in memory at once."""
    reasons: dict[bytes, tuple[int, str]] = {}
    newest: dict[bytes, DeadLetter] = {}
    for letter in letters:
        at_ms, _ = reasons.get(letter.origin, (letter.at_ms, ""))
        if letter.at_ms < at_ms:
            continue
        reasons[letter.origin] = letter.at_ms, letter.reason
        newest[letter.origin] = letter
        if len(newest) > SPARE + limit:
            newest = {each.origin: each for each in unique(newest.values())[-limit:]}
    return Counter(reason for _, reason in reasons.values()), unique(newest.values())[-limit:]


def read_dead_letters(settings: Settings, reason: str | None = None) -> Iterator[DeadLetter]:
    """Yield the dead letters up to the present end of the topic, by partition and offset; none where there is no topic.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    topic = settings.names.topic(DEAD_LETTERS)
    with consuming(settings) as consumer:
        partitions = partitions_of(consumer, topic)
        if not partitions:
            return
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        for record in records_until(consumer, consumer.end_offsets(partitions), settings):
            letter = DeadLetter.from_record(record.key, record.value, record.headers, record.timestamp)
            if reason is None or letter.reason == reason:
                yield letter


def outdated_items(settings: Settings, letters: Iterable[DeadLetter]) -> set[DeadLetter]:
    """Return the dead letters of items of which the log holds a later record; the replayed one would undo it.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    topic = settings.names.topic(ITEMS)
    refused: dict[tuple[int, bytes], list[DeadLetter]] = {}
    for letter in letters:
        if letter.topic == topic and letter.key:
            refused.setdefault((letter.partition, letter.key), []).append(letter)
    outdated: set[DeadLetter] = set()
    if not refused:
        return outdated
    with consuming(settings) as consumer:
        partitions = [each for each in partitions_of(consumer, topic) if each.partition in {at for at, _ in refused}]
        consumer.assign(partitions)
        for partition, beginning in consumer.beginning_offsets(partitions).items():
            here = chain.from_iterable(each for (at, _), each in refused.items() if at == partition.partition)
            consumer.seek(partition, max(beginning, min(letter.offset for letter in here)))
        for record in records_until(consumer, consumer.end_offsets(partitions), settings):
            known = refused.get((record.partition, record.key), ())
            outdated.update(letter for letter in known if record.offset > letter.offset)
    return outdated


def _append(settings: Settings, letters: list[DeadLetter]) -> None:
    producer = KafkaProducer(**settings.kafka_options(), acks="all")
    try:
        sent = [
            producer.send(letter.topic, key=letter.key, value=letter.sendable_value, headers=letter.replayed_headers())
            for letter in letters
        ]
        producer.flush()
        for future in sent:
            future.get(timeout=30)
    except KafkaError as error:
        raise DeliveryFailed(f"not all dead letters were sent again: {error}") from None
    finally:
        producer.close()


def _document(letter: DeadLetter) -> dict[str, object]:
    return {
        "at": iso(letter.at_ms),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "error": letter.error,
        "value": (letter.value or b"")[:SHOWN_BYTES].decode(errors="replace"),
    }

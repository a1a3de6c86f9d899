"""Quix Streams at the work of a stream worker, started by `benchmarks.ingest` with an interpreter of its own.

It wants older releases of some libraries than Headwater does:
`python -m venv .venv-quix && .venv-quix/bin/pip install -e '.[streams]' 'quixstreams>=3'`.
"""

import asyncio
from pathlib import Path

import click
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.ingest_loop import IngestLoop
from headwater.names import ENGAGEMENTS
from headwater.settings import read_settings
from streams.batches import MAX_BATCH
from streams.record import Record
from streams.report import Report

COMMIT_S = 0.1


class IngestSink(BatchingSink):  # type: ignore[misc]
    """Takes in the records between two commits at once."""

    def __init__(self, ingest: IngestLoop, report: Report, stats_file: Path, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._ingest, self._report, self._stats_file, self._loop = ingest, report, stats_file, loop

    def write(self, batch: SinkBatch) -> None:
        """Return when all records are stored and told."""
        records = [
            Record(batch.topic, batch.partition, each.offset, each.key, each.value, tuple(each.headers or ()))
            for each in batch
        ]
        self._loop.run_until_complete(self._ingest.take_in(records))
        self._report.write(self._stats_file)


@click.command()
@click.option("--stats-file", type=click.Path(path_type=Path), required=True)
def main(stats_file: Path) -> None:
    """Take in engagements until killed."""
    settings, report, loop = read_settings(), Report(), asyncio.new_event_loop()
    ingest = loop.run_until_complete(IngestLoop.started(settings, report))
    app = Application(
        broker_address=settings.kafka_bootstrap_servers,
        consumer_group="quix",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        commit_every=MAX_BATCH,
        commit_interval=COMMIT_S,
        state_dir=settings.state_dir / "quix",
    )
    topic = app.topic(settings.names.topic(ENGAGEMENTS), key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(topic).sink(IngestSink(ingest, report, stats_file, loop))
    app.run()


if __name__ == "__main__":
    main()

"""The demo's story: from engagements to a topic's candidates, measured on the way."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import httpx

from headwater.client import HeadwaterClient
from headwater.demo_source import DemoSource
from headwater.errors import ServiceUnavailable
from headwater.events import Engagement, Item
from headwater.producer import EngagementProducer
from headwater.query_load import QueryLoad
from headwater.replay import Replayed, replay_events, wait_until_items_are_taken_in
from headwater.settings import Settings
from headwater.supervisor import Supervisor

READY_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 180.0
TRAIN_TIMEOUT_S = 300.0
WATCH_EVERY_S = 0.5
NOTIFIED_USERS = 1_000
NEW_ITEMS = 5
MOST, UNFILTERED, UNFILTERED_USERS = 1_000, 50, 200
POLL_S = 0.002
RANKING_FIGURES = ("mrr", "recall@1", "recall@10", "topic_match@50")
RANKING_ROWS = {
    "popularity-10m": "popularity of the last 10 minutes",
    "co-visitation+filter": "co-visitation, topic filter",
    "live": "previous model, no filter",
    "candidate": "this model, no filter",
    "candidate+filter": "this model, topic filter",
}
"""Rows of the trainer's ranking that are shown, and what they are."""


@dataclass
class Demo:
    """One run: the parts, and the figures measured so far."""

    settings: Settings
    supervisor: Supervisor
    source: DemoSource
    stats_file: Path
    client: HeadwaterClient
    figures: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Go through the whole story, top to bottom."""
        with EngagementProducer(self.settings) as producer:
            self.stream_in("history", producer, self.source.history())
            self.train("first model")
            self.show_candidates()
            self.publish_new_items(producer)
            self.notify()
            self.stream_in("the next hours", producer, self.source.later())
            self.promote_under_queries()

    def summarise(self, seconds: float, path: Path) -> None:
        """Print the figures, and write them as JSON."""
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        self.figures |= {"source": self.source.name, "seconds": round(seconds, 1), "machine": machine}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.figures, indent=2), encoding="utf-8")
        headline(f"Summary ({machine}; {seconds:.0f} s)")
        stream, swap = self.figures["stream"], self.figures["swap"]
        sent = self.figures["sent"]
        tell(f"{sent:,} engagements = {' + '.join(f'{count:,} {name}' for name, count in stream.items())}")
        tell(f"new item retrievable after {self.figures['item_retrievable_ms']['median']} ms (median)")
        tell(f"{self.figures['notification_lists_per_s']:,} notification lists/s")
        tell(
            f"second generation promoted under {swap['queries']:,} queries: {swap['failed']} failed, p99 {swap['p99_ms']} ms"
        )
        tell(f"figures as JSON: {path}")

    def stream_in(self, what: str, producer: EngagementProducer, events: Iterable[Item | Engagement]) -> None:
        """Send events and wait until every one of them is applied or explained."""
        headline(f"Streaming in {what} ({self.source.name})")
        started, sent = time.monotonic(), Replayed()
        for sent in replay_events(producer, events, None, lambda: wait_until_items_are_taken_in(self.settings)):
            tell(f"sent {sent.items:,} items and {sent.engagements:,} engagements")
        self.figures["sent"] = self.figures.get("sent", 0) + sent.engagements
        accounted = self._drain()
        seconds = time.monotonic() - started
        rate = sent.engagements / seconds
        self.figures.setdefault("engagements_per_s", []).append(round(rate))
        tell(f"{sent.items:,} items, {sent.engagements:,} engagements in {seconds:.1f} s ({rate:,.0f}/s end to end)")
        tell("in total: " + ", ".join(f"{count:,} {name}" for name, count in accounted.items()))

    def _drain(self) -> dict[str, int]:
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        expected = self.figures["sent"]
        while time.monotonic() < deadline:
            self.supervisor.watch()
            report = _read_json(self.stats_file)
            counts = {name: int(report.get(name, 0)) for name in ("applied", "duplicates", "dead_letters")}
            if sum(counts.values()) >= expected:
                self.figures["stream"] = counts
                return counts
            time.sleep(0.1)
        raise ServiceUnavailable(f"the stream did not finish {expected} engagements in {DRAIN_TIMEOUT_S:.0f} s")

    def train(self, what: str) -> dict[str, Any]:
        """Train on the log so far, publish, build, verify, promote; return the run record."""
        headline(f"Training: {what}")
        started = time.monotonic()
        record = self._run_trainer()
        seconds = time.monotonic() - started
        self.figures.setdefault("refreshes", []).append({"seconds": round(seconds, 1), **record})
        tell(f"bundle {record.get('version')} trained, verified and promoted in {seconds:.1f} s")
        tell_ranking(record.get("metrics", {}))
        return record

    def _run_trainer(self) -> dict[str, Any]:
        """Run `headwater train --once`, and keep the other parts running meanwhile."""
        deadline = time.monotonic() + TRAIN_TIMEOUT_S
        command = [sys.executable, "-m", "headwater", "train", "--once", "--json"]
        environment = {**os.environ, **self.supervisor.environment}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as trainer:
            try:
                while True:
                    try:
                        printed, _ = trainer.communicate(timeout=WATCH_EVERY_S)
                        break
                    except subprocess.TimeoutExpired:
                        self.supervisor.watch()
                    if time.monotonic() > deadline:
                        raise ServiceUnavailable(f"the trainer did not finish within {TRAIN_TIMEOUT_S:.0f} s")
            finally:
                trainer.kill()
        if trainer.returncode != 0:
            raise ServiceUnavailable(f"the trainer ended with exit code {trainer.returncode}; its message is above")
        record: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        return record

    def show_candidates(self) -> None:
        """Print what a few users would be notified about, in two topics."""
        headline("Candidates")
        for topic in self.source.topics[:2]:
            for user_id in self.source.users[:3]:
                answer = self.client.candidates(user_id, topic, k=5)
                shown = "  ".join(f"{each.item_id} ({each.score:.2f})" for each in answer.candidates)
                tell(f"topic {topic}, user {user_id}: {shown}")
            self._show_without_a_filter(topic)

    def _show_without_a_filter(self, topic: str) -> None:
        """Print how well the condition alone keeps to a topic."""
        users = self.source.users[:UNFILTERED_USERS]
        members = {
            each.item_id for each in self.client.candidates(users[0], topic, k=MOST, include_engaged=True).candidates
        }
        found = [answer.candidates for answer in self.client.notify(users, topic, k=UNFILTERED, relevance="off")]
        hits = statistics.mean(sum(each.item_id in members for each in candidates) for candidates in found)
        share = hits / min(UNFILTERED, len(members))
        tell(
            f"topic {topic} without a filter, by the condition alone: {share:.0%} of the best {UNFILTERED} are on topic"
        )

    def publish_new_items(self, producer: EngagementProducer) -> None:
        """Publish brand-new items and time how long each takes to be retrievable."""
        headline("A brand-new item")
        waits_ms = []
        topic, user_id = self.source.topics[0], self.source.users[0]
        for _ in range(NEW_ITEMS):
            item_id = f"brand-new-{uuid.uuid4().hex[:8]}"
            producer.send_item(Item(item_id=item_id, topics=(topic,), published_at=self.source.now_ms))
            producer.flush()
            started = time.perf_counter()
            while item_id not in {each.item_id for each in self.client.candidates(user_id, topic, k=MOST).candidates}:
                if time.perf_counter() - started > READY_TIMEOUT_S:
                    raise ServiceUnavailable(f"{item_id} did not become retrievable")
                time.sleep(POLL_S)
            waits_ms.append((time.perf_counter() - started) * 1000)
        self.figures["item_retrievable_ms"] = {
            "median": round(statistics.median(waits_ms), 1),
            "max": round(max(waits_ms), 1),
        }
        tell(
            f"retrievable after {statistics.median(waits_ms):.0f} ms in the median of {NEW_ITEMS}, {max(waits_ms):.0f} ms at most"
        )

    def notify(self) -> None:
        """Run one topic's notification job for many users."""
        users = list(islice(cycle(self.source.users), NOTIFIED_USERS))
        headline(f"A notification job: topic {self.source.topics[0]}, {len(users):,} users")
        started = time.perf_counter()
        lists = list(self.client.notify(users, self.source.topics[0], k=20))
        seconds = time.perf_counter() - started
        self.figures["notification_lists_per_s"] = round(len(lists) / seconds)
        tell(f"{len(lists):,} lists of up to 20 in {seconds:.2f} s ({len(lists) / seconds:,.0f} lists/s)")

    def promote_under_queries(self) -> None:
        """Train and promote a second generation while queries run; count failures and mixed answers."""
        load = QueryLoad(self.settings.serving_url, self.source.users, self.source.topics)
        with load:
            before = self.figures["refreshes"][-1]["version"]
            after = self.train("second model, under queries")["version"]
            load.wait_for(after)
        unexpected = sum(count for version, count in load.versions.items() if version not in (before, after))
        self.figures["swap"] = {
            "queries": sum(load.versions.values()),
            "failed": load.failed,
            "mixed": load.mixed,
            "unexpected_version": unexpected,
            "p50_ms": round(statistics.median(load.latencies_ms), 2),
            "p99_ms": round(statistics.quantiles(load.latencies_ms, n=100)[98], 2),
        }
        tell(
            "{queries:,} queries meanwhile, {failed} failed, {mixed} of mixed versions, p50 {p50_ms} ms, p99 {p99_ms} ms".format(
                **self.figures["swap"]
            )
        )


def tell_ranking(metrics: dict[str, float]) -> None:
    """Print how the newest engagements were ranked before anything learned from them, `row/figure` to value."""
    tell(f"{'the newest engagements, ranked by':34}" + "".join(f"{name:>16}" for name in RANKING_FIGURES))
    for name, words in RANKING_ROWS.items():
        values = [metrics.get(f"{name}/{figure}") for figure in RANKING_FIGURES]
        if None not in values:
            tell(f"  {words:32}" + "".join(f"{value:16.3f}" for value in values))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return document


def headline(text: str) -> None:
    """Begin a chapter."""
    click.secho(f"\n== {text}", bold=True)


def tell(text: str) -> None:
    """Print one line of the story."""
    click.echo(f"   {text}")


def wait_until_up(settings: Settings, supervisor: Supervisor) -> None:
    """Return when the server answers.

    Raises:
        ServiceUnavailable: it does not within two minutes.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        supervisor.watch()
        try:
            if httpx.get(f"{settings.serving_url}/health/live", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise ServiceUnavailable(f"the server at {settings.serving_url} did not come up; see the log")

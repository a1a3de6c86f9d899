"""The trainer in the whole system: refreshes are promoted while queries run, and a killed trainer resumes."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.durations import HOUR_MS
from headwater.events import Engagement, Item
from headwater.producer import EngagementProducer
from headwater.query_load import QueryLoad
from headwater.settings import Settings
from headwater.simulator import World
from headwater.topics import ensure_topics
from tests.services import poll
from tests.system import Process, Server, headwater, stats_file, with_server_port
from training.batches import LearningSettings
from training.checkpoint import read_checkpoint

WORLD = {"users": 300, "topics": 6, "items_per_hour": 60.0, "engagements_per_hour": 3000.0}


def send(settings: Settings, world: World, hours: int) -> int:
    count = 0
    with EngagementProducer(settings) as producer:
        for event in world.step(hours * HOUR_MS):
            if isinstance(event, Item):
                producer.send_item(event)
            else:
                assert isinstance(event, Engagement)
                producer.send(event)
                count += 1
        producer.flush()
    return count


def wait_applied(settings: Settings, expected: int) -> None:
    def applied() -> bool:
        try:
            counters = json.loads(Path(stats_file(settings)).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return bool(counters["applied"] + counters["dead_letters"] >= expected)

    poll(applied, 60, f"{expected} engagements are applied")


@pytest.fixture
def system(settings: Settings) -> Iterator[tuple[Settings, Server]]:
    settings = with_server_port(settings).model_copy(update={"clock": "watermark"})
    ensure_topics(settings)
    with (
        Process(settings, "stream", "--stats-file", str(stats_file(settings))),
        Server(settings) as server,
    ):
        yield settings, server


@pytest.mark.timeout(400)
def test_refreshes_are_promoted_and_a_killed_trainer_goes_on(system: tuple[Settings, Server]) -> None:
    settings, server = system
    world = World(seed=3, **WORLD)  # type: ignore[arg-type]
    nothing = headwater(settings, "train", "--once")
    assert nothing.returncode == 2
    assert "no engagement" in nothing.stderr

    total = send(settings, world, 2)
    wait_applied(settings, total)
    first = headwater(settings, "train", "--once", "--json")
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    assert record["promoted"]
    assert record["metrics"]["candidate/topic_match@50"] > 0.8
    server.wait_ready()

    total += send(settings, world, 1)
    wait_applied(settings, total)
    with (
        QueryLoad(settings.serving_url, world.user_ids()[:50], ["topic-0", "topic-1"]) as load,
        Process(settings, "train", "--every", "1s") as trainer,
    ):
        runs = settings.state_dir / "training" / "runs"
        poll(lambda: len(list(runs.glob("*.json"))) >= 2, 90, "a refresh is promoted")
        load.wait_for(max(runs.glob("*.json")).stem)
        total += send(settings, world, 1)
        time.sleep(0.5)
        trainer.kill()
        wait_applied(settings, total)
        trainer.start()
        poll(lambda: len(list(runs.glob("*.json"))) >= 3, 90, "the restarted trainer resumes")
        newest = max(runs.glob("*.json")).stem
        load.wait_for(newest)
        assert trainer.end(signal.SIGTERM) == 0
    assert load.failed == 0
    assert set(load.versions) <= {path.name for path in settings.model_dir.iterdir()} | {record["version"]}

    restored = read_checkpoint(settings.state_dir / "training" / "checkpoints", LearningSettings())
    assert restored is not None
    learner, users, _ = restored
    assert int(users.states["engagements"][: len(users)].sum()) == total
    assert int(learner.corpus.totals.sum()) == total
    assert headwater(settings, "doctor").returncode == 0

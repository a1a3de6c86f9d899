"""Reading the log: what of it is new, whether it is still the same one, and that silence is told."""

import pytest

from headwater.errors import ServiceUnavailable
from headwater.events import Engagement
from headwater.names import ENGAGEMENTS
from headwater.settings import Settings
from tests.unit.training.fake_log import FakeLog
from training.log import LogReader

T0 = 1_700_000_000_000


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> FakeLog:
    log = FakeLog(Settings())
    monkeypatch.setattr("headwater.consumers.KafkaConsumer", log.consumer)
    return log


def engagements(count: int) -> list[Engagement]:
    return [Engagement(event_id=f"e{n}", user_id=f"u{n}", item_id="i", occurred_at=T0) for n in range(count)]


def test_only_what_was_appended_is_read(log: FakeLog) -> None:
    reader = LogReader(Settings())
    log.send(engagements(5))
    assert len(list(reader.read_engagements())) == 5
    assert list(reader.read_engagements()) == []
    log.send(engagements(300))
    assert len(list(reader.read_engagements())) == 300


def test_a_log_that_ends_before_the_offsets_is_another_one(log: FakeLog) -> None:
    reader = LogReader(Settings())
    assert reader.fits()
    log.send(engagements(5))
    list(reader.read_engagements())
    assert reader.fits()
    log.clear()
    assert not reader.fits()
    reader.offsets[ENGAGEMENTS] = {0: 0, 7: 1}
    assert not reader.fits(), "there is no such partition any more"


def test_a_topic_that_is_not_there_says_nothing_about_the_log(log: FakeLog) -> None:
    reader = LogReader(Settings())
    reader.offsets[ENGAGEMENTS] = {0: 5}
    log.records = {}
    assert reader.fits()


@pytest.mark.timeout(20)
def test_silence_before_the_end_is_told(log: FakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.consumers.SILENCE_S", 0.01)
    log.send(engagements(5))
    log.silent = True
    with pytest.raises(ServiceUnavailable, match="no record of engagements"):
        list(LogReader(Settings()).read_engagements())

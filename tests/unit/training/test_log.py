"""Reading the log: what of it is new, whether it is still the same one, and that silence is reported."""

from collections import Counter

import pytest
from kafka import TopicPartition

from headwater.errors import ServiceUnavailable
from headwater.events import Engagement, Item, now_ms
from headwater.names import ENGAGEMENTS
from headwater.settings import Settings
from tests.unit.training.fake_log import FakeLog
from training.corpus import Corpus
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


def test_frames_of_many_engagements_are_read_in_parts(log: FakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.log.PART", 200)
    log.send(engagements(500))
    log.send_framed(engagements(3000), 50)
    log.send(engagements(10))
    reader = LogReader(Settings())
    parts = [list(part) for part in reader.read_parts(reader.unread_until())]
    assert max(map(len, parts)) < 2 * 200 + 50
    assert len(parts) < 3 * 3510 / 200
    positions = [[each.offset for part in parts for each in part if each.partition == number] for number in (0, 1)]
    assert all(each == sorted(set(each)) for each in positions)
    assert sum(map(len, positions)) == 3510
    assert reader.offsets[ENGAGEMENTS] == {each.partition: end for each, end in reader.unread_until().items()}
    assert list(reader.read_parts(reader.unread_until())) == []


def test_each_part_takes_its_share_of_every_partition(log: FakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.log.PART", 200)
    log.send_framed(engagements(4000), 10)
    reader = LogReader(Settings())
    sizes = [Counter(each.partition for each in part) for part in reader.read_parts(reader.unread_until())]
    assert all(80 <= size[number] <= 120 for size in sizes[1:] for number in (0, 1))


def test_what_is_gone_before_the_end_is_not_waited_for(log: FakeLog) -> None:
    log.send(engagements(6))
    log.records[TopicPartition(ENGAGEMENTS, 0)][-1] = None
    reader = LogReader(Settings())
    ends = reader.unread_until()
    assert [len(list(part)) for part in reader.read_parts(ends)] == [5]
    assert reader.offsets[ENGAGEMENTS] == {0: 3, 1: 3}


def test_items_are_as_old_as_the_log_tells(log: FakeLog) -> None:
    day_ms = 86_400_000
    items = [Item(item_id=item_id, topics=("t",), published_at=T0) for item_id in ("old", "new")]
    log.appended_ms = now_ms() - 40 * day_ms
    log.send(items[:1])
    log.appended_ms = 0
    log.send(items[1:])
    corpus = Corpus()
    LogReader(Settings()).read_items(corpus)
    corpus.forget(now_ms() - 30 * day_ms)
    assert [corpus.alive[corpus.item_index[each.item_id]] for each in items] == [False, True]


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

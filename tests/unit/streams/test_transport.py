"""What is fetched while partitions are shared out anew comes again."""

from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.consumer import ThreadDelegateConsumer
from faust.types import TP

from streams.transport import BatchConsumer

COMMITTED, FRESH, OTHER = (TP("engagements", number) for number in range(3))


class Consumer(BatchConsumer):
    """Without a thread: what a fetch brings, and whether Faust takes it, is up to the test."""

    def __init__(self) -> None:
        self.flow_active = True
        self.positions = {COMMITTED: 9, FRESH: 9}
        self._read_offset: Any = {}
        self._committed_offset: Any = {}

    def assignment(self) -> set[TP]:
        return set(self.positions)

    async def seek_to_committed(self) -> Any:
        self.positions[COMMITTED] = 5
        return {COMMITTED: 5, FRESH: None}

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return dict.fromkeys(partitions, 2)

    async def seek_wait(self, partitions: Any) -> None:
        self.positions.update(partitions)


async def test_partitions_of_which_nothing_is_committed_are_read_from_the_beginning() -> None:
    consumer = Consumer()
    await consumer.perform_seek()
    assert consumer.positions == {COMMITTED: 5, FRESH: 2}
    consumer.positions.clear()
    await consumer.perform_seek()
    assert consumer.positions == {}


async def test_what_faust_drops_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, wanted = Consumer(), {COMMITTED, OTHER}
    asked: list[set[TP]] = []

    async def fetched(self: Any, active_partitions: set[TP], timeout: float) -> dict[TP, list[Any]]:
        asked.append(active_partitions)
        wanted.clear()  # as Faust does
        consumer.flow_active = len(asked) > 1
        return {COMMITTED: [record]}

    record = SimpleNamespace(key=b"k", value=b"v", headers=())
    monkeypatch.setattr(ThreadDelegateConsumer, "_getmany", fetched)
    monkeypatch.setattr("streams.transport.replace", lambda last, **changes: SimpleNamespace(**changes))
    await consumer._getmany(wanted, 1.0)
    assert asked == [{COMMITTED, OTHER}]
    assert consumer.positions == {COMMITTED: 9, FRESH: 9}, "not before the flow goes on"
    consumer.flow_active = True
    await consumer._getmany({COMMITTED, FRESH}, 1.0)
    assert consumer.positions == {COMMITTED: 5, FRESH: 2}
    consumer.positions = {COMMITTED: 9, FRESH: 9}
    await consumer._getmany({COMMITTED, FRESH}, 1.0)
    assert consumer.positions == {COMMITTED: 9, FRESH: 9}, "nothing was dropped"

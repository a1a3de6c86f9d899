"""`headwater train --every`: when it refreshes."""

import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from headwater.errors import UsageError
from headwater.settings import Settings
from training import cli

RECORD = {"version": "v1", "promoted": True, "examples": 1, "seconds": {"total": 1.0}, "reasons": []}


class FakeTrainer:
    """Has nothing to train on at first; the process is asked to end with the first model."""

    def __init__(self, empty: int) -> None:
        self.empty, self.refreshes = empty, 0
        self.learner: object = None

    def refresh(self, promote: bool) -> dict[str, Any]:
        self.refreshes += 1
        if self.refreshes <= self.empty:
            raise UsageError("nothing yet")
        self.learner = self
        os.kill(os.getpid(), signal.SIGTERM)
        return RECORD


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def test_it_refreshes_at_once_and_soon_again_until_there_is_a_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "FIRST_RETRY_S", 0.01)
    trainer: Any = FakeTrainer(empty=3)
    with caplog.at_level(logging.WARNING):
        cli._keep_refreshing(trainer, Settings(), 3_600_000, True, False)
    assert trainer.refreshes == 4
    assert [each.message for each in caplog.records] == ["no refresh this time: nothing yet"]
    assert capsys.readouterr().out.startswith("v1: 1 examples, promoted")

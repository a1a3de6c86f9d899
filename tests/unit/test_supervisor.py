"""The supervisor: signals leave no process behind, mistakes end it."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from headwater.errors import UsageError
from headwater.supervisor import Part, Supervisor, up
from tests.services import poll

SERVICE = """
import signal, sys
from headwater.supervisor import Supervisor
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with Supervisor({}) as supervisor:
    supervisor.start_service("redis")
    print(supervisor.parts[0].process.pid, flush=True)
    signal.raise_signal(int(sys.argv[1]))
    print("went on")
"""
STARTING = """
import signal, subprocess, sys
from headwater import supervisor
signal.signal(signal.SIGHUP, signal.SIG_DFL)
class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)
        signal.raise_signal(int(sys.argv[1]))
supervisor.subprocess.Popen = Interrupted
with supervisor.Supervisor({}) as supervising:
    supervising.start_service("redis")
    print("went on")
"""


def ran(script: str, number: signal.Signals) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(int(number))], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("script", [SERVICE, STARTING])
def test_a_signal_ends_what_was_started(script: str, number: signal.Signals) -> None:
    done = ran(script, number)
    assert "KeyboardInterrupt" in done.stderr
    (started,) = done.stdout.split()
    assert not Path(f"/proc/{started}").exists()


def test_a_hang_up_is_passed_over_where_it_was_to_be() -> None:
    done = ran(SERVICE.replace("SIG_DFL", "SIG_IGN"), signal.SIGHUP)
    assert "went on" in done.stdout, done.stderr


def test_a_mistake_is_not_repeated() -> None:
    log = io.StringIO()
    refusal = "`headwater nothing --at all` refuses to run: .*No such command"
    with pytest.raises(UsageError, match=refusal), Supervisor({}, log) as supervisor:
        part = supervisor.start(Part("nothing", ("nothing", "--at", "all")))
        process = part.process
        assert process is not None and process.stdout is not None
        output = process.stdout
        poll(lambda: output.closed and process.poll() is not None, 10, "it has ended")
        assert "No such command" in log.getvalue()
        supervisor.watch()


@pytest.mark.parametrize("option", [("--kafka", "localhost:9092"), ("--redis", "redis://localhost:6379/0")])
def test_a_store_and_a_log_of_different_ages_are_refused(option: tuple[str, str]) -> None:
    result = CliRunner().invoke(up, option)
    assert isinstance(result.exception, UsageError)
    assert "both --kafka and --redis" in str(result.exception)

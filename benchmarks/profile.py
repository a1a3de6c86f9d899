"""Where server and stream worker spend their time: `python -m benchmarks.profile`, with py-spy looking on.

Both are on real Kafka and Redis: the server answers single queries, then notification jobs, as fast as it can; the
stream worker takes in 100,000 news clicks.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.harness import Installation, installed, load, news, own_core, query_paths, record
from headwater.errors import UsageError
from tests.system import Process, headwater

EVENTS = 100_000
USERS = 10_000
K, JOB_K = 50, 100
CONNECTIONS, SECONDS = 32, 8.0
RATE = 200
SHOWN = 8
Shares = list[dict[str, str | float]]


@click.command()
def main() -> None:
    """Look and keep what was seen."""
    data, processes = news(), dict[str, Shares]()
    with installed() as installation:
        with looked_at(installation.stream, "stream worker, framed engagements", processes):
            installation.stream_in(data, data.until(EVENTS))
        installation.train()
        installation.server.wait_ready()
        users, topics = data.users(USERS), installation.topics()
        with own_core(installation.server):
            with looked_at(installation.server, "server, single queries", processes):
                load(installation.settings.serving_url, query_paths(users, topics, K), CONNECTIONS, SECONDS)
            with looked_at(installation.server, "server, notification job", processes):
                _notify(installation, users, topics[0])
    click.echo(json.dumps(processes, indent=1))
    record("profile", {"processes": processes})


def _notify(installation: Installation, users: list[str], topic: str) -> None:
    path = installation.settings.state_dir / "users.csv"
    path.write_text("user_id\n" + "\n".join(users) + "\n", encoding="utf-8")
    output = str(path.with_suffix(".jsonl"))
    options = ("--users", str(path), "--k", str(JOB_K), "--output", output, "--json")
    headwater(installation.settings, "notify", "--topic", topic, *options)


@contextmanager
def looked_at(process: Process, name: str, processes: dict[str, Shares]) -> Iterator[None]:
    """Sample a process, and note the functions that most samples were in.

    Raises:
        UsageError: py-spy is not installed, or must not look.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "samples"
        spying = str(Path(sys.executable).with_name("py-spy"))
        command = [spying, "record", "--gil", "--rate", str(RATE), "--format", "raw", "--output", str(path)]
        try:
            spy = subprocess.Popen([*command, "--pid", str(process.pid)], stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            raise UsageError("the profile needs py-spy: pip install py-spy") from None
        try:
            yield
        finally:
            spy.send_signal(2)
            spy.wait()
        processes[name] = _shares(path)


def _shares(path: Path) -> Shares:
    """Return the functions with the largest shares of samples of their own."""
    own: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        function, _, place = stack.split(";")[-1].rpartition(" (")
        own[f"{function} ({Path(place.rpartition(':')[0]).name})"] += int(count)
    total = sum(own.values())
    return [{"function": name, "share": round(count / total, 4)} for name, count in own.most_common(SHOWN)]


if __name__ == "__main__":
    main()

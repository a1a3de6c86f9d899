"""`headwater notify`: a topic's candidates for a file of users, into a file."""

import json
import sys
import time
from itertools import chain, islice
from pathlib import Path

import click

from headwater.client import HeadwaterClient
from headwater.errors import UsageError
from headwater.settings import read_settings
from serving.candidate_files import answered, count_complete, discard, exclusive_output, open_writer
from serving.user_files import count_users, read_users


@click.command()
@click.option("--topic", required=True, help="What to notify about.")
@click.option(
    "--users", required=True, type=click.Path(path_type=Path), help="CSV, JSONL, Parquet or text, one user_id per row."
)
@click.option("--k", type=click.IntRange(1, 1000), default=50, show_default=True, help="Candidates per user.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="CSV, JSONL or Parquet by extension.")
@click.option("--restart", is_flag=True, help="Start again instead of resuming an interrupted job.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end, no progress.")
def notify(topic: str, users: Path, k: int, output: Path, restart: bool, as_json: bool) -> None:
    """Find a topic's candidates for many users; an interrupted job resumes where it stopped."""
    settings = read_settings()
    total = count_users(users)
    if users.resolve() == output.resolve():
        raise UsageError(f"--output {output} is the users file itself")
    with exclusive_output(output):
        if restart:
            discard(output)
        done = _done(output, k, topic, users, total)
        started = time.monotonic()
        with HeadwaterClient(settings.serving_url) as client:
            lines = client.notify_lines(islice(read_users(users), done, None), topic, k)
            first = list(
                islice(lines, 1)
            )  # asked before the file is opened, so that a refused request leaves none behind
            with (
                open_writer(output, k) as write,
                click.progressbar(
                    length=total, label=f"topic {topic}", hidden=as_json or not sys.stderr.isatty(), file=sys.stderr
                ) as bar,
            ):
                bar.update(done)
                for line in chain(first, lines):
                    write(line)
                    bar.update(1)
    seconds = time.monotonic() - started
    summary = {
        "topic": topic,
        "users": total,
        "resumed_after": done,
        "seconds": round(seconds, 2),
        "output": str(output),
    }
    rate = (total - done) / max(seconds, 1e-9)
    click.echo(
        json.dumps(summary) if as_json else f"{total - done} lists in {seconds:.1f} s ({rate:,.0f} lists/s) in {output}"
    )


def _done(output: Path, k: int, topic: str, users: Path, total: int) -> int:
    """Return how many of the users an interrupted job with the same users, topic and k has answered for."""
    done = count_complete(output, k)
    if done > total:
        raise UsageError(f"{output} holds {done} users, {users} only {total}: another job's output? Use --restart")
    if done:
        for (user_id, of_topic), wanted in zip(answered(output, k), read_users(users), strict=False):
            if of_topic != topic:
                raise UsageError(
                    f"{output} was started with topic {of_topic!r}, not {topic!r}: another job's output? Use --restart"
                )
            if user_id != wanted:
                raise UsageError(
                    f"{output} was started with user {user_id!r} where {users} has {wanted!r}: another job's output? "
                    "Use --restart"
                )
    return done

"""Notification jobs from a file to a file."""

import csv
import json
from collections import Counter
from pathlib import Path

from headwater.settings import Settings
from tests.system import Server, headwater


def test_notification_job_from_file_to_file(system: tuple[Settings, Server], tmp_path: Path) -> None:
    settings, _ = system
    users = tmp_path / "users.csv"
    users.write_text("user_id,name\n" + "".join(f"u{number},x\n" for number in range(700)))
    for suffix in ("csv", "jsonl", "parquet"):
        output = tmp_path / f"out.{suffix}"
        arguments = ("notify", "--topic", "news", "--users", str(users), "--k", "5", "--output", str(output), "--json")
        done = headwater(settings, *arguments)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["users"] == 700
        assert output.is_file()
    output = tmp_path / "out.csv"
    whole = output.read_bytes()
    output.unlink()
    (tmp_path / "out.csv.k5.partial").write_bytes(whole[: len(whole) // 2])
    resumed = headwater(
        settings, "notify", "--topic", "news", "--users", str(users), "--k", "5", "--output", str(output), "--json"
    )
    assert 300 < json.loads(resumed.stdout)["resumed_after"] < 400
    with output.open() as rows:
        assert Counter(row["user_id"] for row in csv.DictReader(rows)) == {f"u{number}": 5 for number in range(700)}
    mistakes = {
        "exists and is complete": ("--users", str(users), "--output", str(output)),
        "no such file": ("--users", str(tmp_path / "none.csv"), "--output", str(output)),
        "extension must be": ("--users", str(users), "--output", str(tmp_path / "out.xml")),
        "no column user_id": ("--users", str(tmp_path / "bad.csv"), "--output", str(output)),
    }
    (tmp_path / "bad.csv").write_text("id\n1\n")
    for message, options in mistakes.items():
        failed = headwater(settings, "notify", "--topic", "news", *options)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1
    refused = headwater(
        settings, "notify", "--topic", "newz", "--users", str(users), "--output", str(tmp_path / "new.csv")
    )
    assert (refused.returncode, "did you mean news?" in refused.stderr) == (1, True)
    assert not list(tmp_path.glob("new*"))


def test_the_users_of_an_output_are_those_of_the_file_after_a_restarted_job(
    system: tuple[Settings, Server], tmp_path: Path
) -> None:
    settings, _ = system
    users, output = tmp_path / "users.txt", tmp_path / "out.parquet"
    users.write_text("\n".join(f"user-{number}" for number in range(50)))
    (tmp_path / "out.parquet.k2.partial.jsonl").write_text('{"of": "another job"}\n')
    arguments = ("notify", "--topic", "news", "--users", str(users), "--k", "2", "--output", str(output), "--json")
    done = headwater(settings, *arguments, "--restart")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_after"] == 0

"""Notification jobs go on with their own output only."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from headwater.errors import DataFileError, UsageError
from serving.candidate_files import open_writer
from serving.notify import notify
from tests.unit.serving.test_files import KINDS, K, answer, break_off


def asked(tmp_path: Path, topic: str, output: Path, lines: str = "u0\nu1\nu2\n") -> BaseException | None:
    users = tmp_path / "users.txt"
    users.write_text(lines)
    arguments = ["--topic", topic, "--users", str(users), "--k", str(K), "--output", str(output)]
    return CliRunner().invoke(notify, arguments).exception


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_of_a_job_with_another_topic_is_refused(kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{kind}"
    break_off(output, 2)
    refused = asked(tmp_path, "sport", output)
    assert isinstance(refused, UsageError)
    assert "topic 't', not 'sport'" in str(refused)
    assert "--restart" in str(refused)


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_of_a_job_with_other_users_is_refused(kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{kind}"
    break_off(output, 3)
    refused = asked(tmp_path, "t", output, "u0\nx1\nu2\n")
    assert isinstance(refused, UsageError)
    assert "started with user 'u1' where" in str(refused)


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_output_is_refused(kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{kind}"
    with open_writer(output, K) as write:
        write(answer(0))
    assert isinstance(asked(tmp_path, "t", output), DataFileError)

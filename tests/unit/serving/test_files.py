"""Files of notification jobs: users in, candidates out, interrupted and resumed."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.errors import DataFileError
from headwater.events import Candidate, UserCandidates
from headwater.wire import identifier
from serving.candidate_files import answered, count_complete, discard, exclusive_output, open_writer
from serving.user_files import count_users, read_users

KINDS = ["csv", "jsonl", "parquet"]
K = 2


def answer(number: int, candidates: int = K) -> bytes:
    found = tuple(Candidate(item_id=f'i{each},"é', score=1.5) for each in range(candidates))
    answered = UserCandidates(
        user_id=f"u{number}", topic="t", candidates=found, bundle_version="v1", generation="v1", cold_start=False
    )
    return answered.model_dump_json().encode()


def break_off(path: Path, users: int) -> None:
    """Begin a job that is interrupted after so many users."""
    with pytest.raises(KeyboardInterrupt), open_writer(path, K) as write:
        for number in range(users):
            write(answer(number))
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_broken_off_goes_on_after_what_is_complete(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    break_off(path, 5)
    assert not path.exists()
    done = count_complete(path, K)
    assert done in (4, 5)
    assert list(answered(path, K)) == [(f"u{number}", "t") for number in range(done)]
    with open_writer(path, K) as write:
        for number in range(done, 8):
            write(answer(number))
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataFileError, match="exists and is complete; use --restart"):
        count_complete(path, K)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_named_and_the_job_goes_on_later(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    with pytest.raises(DataFileError, match=r"No space left on device; with more room"), open_writer(path, K) as write:
        write(answer(0))
        write(answer(1))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert count_complete(path, K) in (1, 2)
    with pytest.raises(ConnectionError), open_writer(path, K):
        raise ConnectionError("of something else")


@pytest.mark.parametrize(("kind", "damage"), [("jsonl", b"\0\0\n"), ("jsonl", b"[]\n"), ("csv", b"u9\n")])
def test_a_damaged_file_is_named(kind: str, damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    break_off(path, 3)
    (lines,) = tmp_path.iterdir()
    lines.write_bytes(lines.read_bytes() + damage)
    with pytest.raises(DataFileError, match=r"partial is damaged; use --restart"):
        list(answered(path, K)) if count_complete(path, K) else None


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_another_length_are_not_continued(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    break_off(path, 2)
    with pytest.raises(DataFileError, match="started with another --k than 3; use --restart"):
        count_complete(path, 3)


def test_one_job_at_a_time_writes_an_output(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with exclusive_output(path):
        with pytest.raises(DataFileError, match="another job is at work on"), exclusive_output(path):
            pass
        with exclusive_output(tmp_path / "other.csv"):
            pass
    with exclusive_output(path):
        pass
    assert list(tmp_path.iterdir()) == []
    for directory in (tmp_path, Path(), Path("/")):
        with pytest.raises(DataFileError, match="is a directory"), exclusive_output(directory):
            pass
    with (
        pytest.raises(DataFileError, match="cannot be written: No such file or directory"),
        exclusive_output(path / "none"),
    ):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_forgetting_leaves_nothing_to_go_on_from(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    break_off(path, 2)
    discard(path)
    assert count_complete(path, K) == 0
    assert list(tmp_path.iterdir()) == []


def test_every_cut_of_a_csv_file_is_continued_to_the_same_file(tmp_path: Path) -> None:
    path, partial = tmp_path / "out.csv", tmp_path / "out.csv.k2.partial"
    answers = [answer(0), answer(1, candidates=0), answer(2, candidates=1), answer(2)]
    with open_writer(path, K) as write:
        for each in answers:
            write(each)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.unlink()
        partial.write_bytes(whole[:length])
        done = count_complete(path, K)
        with open_writer(path, K) as write:
            for each in answers[done:]:
                write(each)
        assert path.read_bytes() == whole, length


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"user_id": [f"u{number}" for number in range(1000)]}), path)
    content = bytearray(path.read_bytes())
    content[10:200] = bytes(190)
    path.write_bytes(content)
    with pytest.raises(DataFileError, match="not a Parquet file"):
        count_users(path)


@pytest.mark.parametrize("user_id", ["\U0001fae8", "a b", "\u0300", "x" * 256])
def test_users_are_named_as_events_name_them(user_id: str, tmp_path: Path) -> None:
    path = tmp_path / "u.txt"
    path.write_text(f"{user_id}\n", encoding="utf-8")
    assert list(read_users(path)) == [identifier("user_id", user_id)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("users.csv", "user_id,x\na,1\nb,2\n"),
        ("users.jsonl", '{"user_id": "a"}\n"b"\n'),
        ("users.txt", "a\n\nb\n"),
    ],
)
def test_users_are_read_from_every_kind(name: str, content: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, encoding=encoding)
    assert list(read_users(path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("u.csv", b"id\n1\n", "no column user_id"),
        ("u.csv", b"user_id\n\xff\n", "not a CSV file"),
        ("u.csv", b"", "no column user_id"),
        ("u.jsonl", b'{"user_id": [1]}\n', "row 1"),
        ("u.jsonl", b"{broken\n", "line 1: not JSON"),
        ("u.txt", b"\xff\n", "not UTF-8"),
        ("u.txt", b"a\n" + b"x" * 300 + b"\n", "row 2"),
        ("u.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("u.txt", "a\nb\u200bc\n".encode(), "row 2: user_id must be 1 to 256 printable characters"),
        ("u.parquet", b"not parquet", "not a Parquet file"),
    ],
)
def test_broken_users_files_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        count_users(path)

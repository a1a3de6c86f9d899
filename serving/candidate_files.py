"""Output files of notification jobs, which an interrupted job resumes."""

import csv
import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path
from typing import Any

import orjson

from headwater.durable import exclusive
from headwater.errors import DataFileError

Write = Callable[[bytes], object]
"""Takes one user's `UserCandidates` as a line of JSON."""
CSV_COLUMNS = ("user_id", "topic", "rank", "item_id", "score", "bundle_version")
PARQUET_ROWS = 10_000
FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
KINDS = (".csv", ".jsonl", ".parquet")


def _partial(path: Path, k: int) -> Path:
    """Return the file that collects answers of up to k candidates: JSON lines for Parquet, which cannot be appended to."""
    return path.with_name(f"{path.name}.k{k}.partial{'.jsonl' if path.suffix.lower() == '.parquet' else ''}")


def _partials(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{escape(path.name)}.k*.partial*"))


@contextmanager
def exclusive_output(path: Path) -> Iterator[None]:
    """Reserve an output file for this job.

    Raises:
        DataFileError: another job writes it, or it cannot be written.
    """
    if path.is_dir():
        raise DataFileError(f"{path} is a directory")
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(path.with_name(f".{path.name}.lock")))
        except BlockingIOError:
            raise DataFileError(f"another job is at work on {path}") from None
        except OSError as error:
            raise DataFileError(f"{path} cannot be written: {error.strerror}") from None
        yield


def discard(path: Path) -> None:
    """Delete an output file and its partial files."""
    for each in (path, *_partials(path)):
        each.unlink(missing_ok=True)


def count_complete(path: Path, k: int) -> int:
    """Return how many users an interrupted job with the same k has answered for; a torn last line is cut off.

    Raises:
        DataFileError: the extension is not one of `KINDS`, the finished file exists, or a job with another k was
            interrupted.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise DataFileError(f"{path}: the extension must be one of {', '.join(KINDS)}")
    if path.exists():
        raise DataFileError(f"{path} exists and is complete; use --restart to write it again")
    lines = _partial(path, k)
    for other in _partials(path):
        if other != lines:
            raise DataFileError(f"{other} was started with another --k than {k}; use --restart")
    if not lines.exists():
        return 0
    _cut_torn_line(lines)
    if kind == ".csv":
        with _undamaged(lines):
            return _complete_csv_users(lines)
    with lines.open("rb") as file:
        return sum(1 for _ in file)


def answered(path: Path, k: int) -> Iterator[tuple[str, str]]:
    """Yield user and topic of each answer of an interrupted job, once `count_complete` has cut off incomplete ones."""
    lines = _partial(path, k)
    with _undamaged(lines):
        if path.suffix.lower() == ".csv":
            with lines.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if row["rank"] in ("", "1"):
                        yield row["user_id"], row["topic"]
        else:
            with lines.open("rb") as binary:
                for line in binary:
                    answer = orjson.loads(line)
                    yield answer["user_id"], str(answer["topic"])


@contextmanager
def _undamaged(lines: Path) -> Iterator[None]:
    """Turn what a damaged file raises into an error that names it."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise DataFileError(f"{lines} is damaged; use --restart") from None


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)


def _complete_csv_users(path: Path) -> int:
    """Count users; the last one may lack rows, so its rows are cut off, to be written again."""
    with path.open(encoding="utf-8", newline="") as file:
        users, last_at, at, previous = 0, 0, 0, None
        for number, line in enumerate(file):
            if number > 0:
                user_id, _, rank = next(csv.reader([line]))[:3]
                if rank in ("", "1") or user_id != previous:
                    users, last_at, previous = users + 1, at, user_id
            at += len(line.encode())
    if users:
        with path.open("rb+") as file:
            file.truncate(last_at)
    return max(0, users - 1)


@contextmanager
def open_writer(path: Path, k: int) -> Iterator[Write]:
    """Append answers to those of an interrupted job; the output file appears when the block ends.

    The format follows from the extension.
    """
    lines = _partial(path, k)
    try:
        if path.suffix.lower() == ".csv":
            with lines.open("a", encoding="utf-8", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                if file.tell() == 0:
                    rows.writerow(CSV_COLUMNS)
                yield lambda line: rows.writerows(_csv_rows(orjson.loads(line)))
        else:
            with lines.open("ab") as binary:
                yield lambda line: binary.write(line + b"\n")
        if path.suffix.lower() == ".parquet":
            with _undamaged(lines):
                _to_parquet(lines, path)
        else:
            lines.replace(path)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DataFileError(f"{path}: {error.strerror}; with more room the same command goes on") from None


def _csv_rows(answer: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    user_id, topic, version = answer["user_id"], answer["topic"], answer["bundle_version"]
    if not answer["candidates"]:
        yield user_id, topic, "", "", "", version
    for rank, candidate in enumerate(answer["candidates"], start=1):
        yield user_id, topic, rank, candidate["item_id"], candidate["score"], version


def _to_parquet(lines: Path, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("topic", pa.string()),
            ("item_ids", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("bundle_version", pa.string()),
        ]
    )
    temporary = path.with_suffix(".parquet.tmp")
    with pq.ParquetWriter(temporary, schema) as writer, lines.open("rb") as file:
        rows: list[dict[str, object]] = []
        for line in file:
            answer = orjson.loads(line)
            rows.append(
                {
                    "user_id": answer["user_id"],
                    "topic": answer["topic"],
                    "item_ids": [candidate["item_id"] for candidate in answer["candidates"]],
                    "scores": [candidate["score"] for candidate in answer["candidates"]],
                    "bundle_version": answer["bundle_version"],
                }
            )
            if len(rows) == PARQUET_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, schema))
    temporary.replace(path)
    lines.unlink()

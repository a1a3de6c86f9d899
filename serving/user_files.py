"""Files of users for notification jobs."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from headwater.errors import DataFileError, InvalidEvent
from headwater.events import MAX_IDENTIFIER
from headwater.wire import identifier

COLUMN = "user_id"


def read_users(path: Path) -> Iterator[str]:
    """Yield the user ids in a file, in memory independent of its size.

    Args:
        path: `.csv` and `.parquet` with a column `user_id`, `.jsonl` of objects with `user_id` or of plain ids, or text
            with one id per line.

    Raises:
        DataFileError: naming file, row and what is expected.
    """
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if not path.is_file():
        raise DataFileError(f"{path}: no such file")
    for row, user_id in enumerate(readers.get(path.suffix.lower(), _text)(path), start=1):
        text = str(user_id).strip() if isinstance(user_id, str | int) and not isinstance(user_id, bool) else ""
        try:
            wanted = identifier(COLUMN, text)
        except InvalidEvent:
            problem = f"{COLUMN} must be 1 to {MAX_IDENTIFIER} printable characters, not {str(user_id)[:50]!r}"
            raise DataFileError(f"{path} row {row}: {problem}") from None
        yield wanted


def count_users(path: Path) -> int:
    """Return the number of users in a file, checking all of it."""
    return sum(1 for _ in read_users(path))


def _text(path: Path) -> Iterator[object]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from (line for line in lines if line.strip())
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path}: not UTF-8 text: {error}") from None


def _csv(path: Path) -> Iterator[object]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if COLUMN not in (reader.fieldnames or ()):
                raise DataFileError(
                    f"{path}: no column {COLUMN}, only {', '.join(reader.fieldnames or ()) or 'nothing'}"
                )
            yield from (row[COLUMN] for row in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"{path}: not a CSV file: {error}") from None


def _jsonl(path: Path) -> Iterator[object]:
    for number, line in enumerate(_text(path), start=1):
        try:
            value = json.loads(str(line))
        except (ValueError, RecursionError) as error:
            raise DataFileError(f"{path} line {number}: not JSON: {error}") from None
        yield value.get(COLUMN) if isinstance(value, dict) else value


def _parquet(path: Path) -> Iterator[object]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if COLUMN not in file.schema_arrow.names:
                raise DataFileError(f"{path}: no column {COLUMN}, only {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(columns=[COLUMN]):
                yield from batch.column(0).to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataFileError(f"{path}: not a Parquet file: {error}") from None

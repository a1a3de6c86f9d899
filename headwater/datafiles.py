"""Data files of engagements and items: Parquet, CSV or JSONL, by extension."""

import csv
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from headwater.durable import digest
from headwater.errors import DataFileError
from headwater.events import MAX_EPOCH_MS, MAX_IDENTIFIER, MIN_EPOCH_MS, Action, Engagement, Identifier, Item

Table = dict[str, list[Any]]
ENGAGEMENT_COLUMNS = ("user_id", "item_id", "occurred_at_ms")
ITEM_COLUMNS = ("item_id", "published_at_ms")
MIN_POSITIVE_RATING = 4.0
MOVIELENS = {"userid": "user_id", "movieid": "item_id", "timestamp": "occurred_at_ms", "genres": "topics"}
NO_GENRES = "(no genres listed)"
MOVIELENS_BEGAN_MS = 788_918_400_000
ACTION: TypeAdapter[str] = TypeAdapter(Action)
IDS: TypeAdapter[list[str]] = TypeAdapter(list[Identifier])
IDS_AT_ONCE = 10_000


@dataclass(frozen=True)
class EngagementTable:
    """Engagements as columns, in order of time.

    Attributes:
        user_ids, item_ids: (N,) object arrays of str.
        occurred_ms: (N,) int64.
        event_ids: Given in the file, else derived from its contents and the row.
        actions: As in the file, else `click`.
    """

    user_ids: npt.NDArray[np.object_]
    item_ids: npt.NDArray[np.object_]
    occurred_ms: npt.NDArray[np.int64]
    event_ids: list[str]
    actions: list[str]

    def __len__(self) -> int:
        return len(self.occurred_ms)

    def since(self, from_ms: int) -> "EngagementTable":
        """Return the engagements from a time on."""
        rows = slice(int(np.searchsorted(self.occurred_ms, from_ms)), None)
        return EngagementTable(
            self.user_ids[rows], self.item_ids[rows], self.occurred_ms[rows], self.event_ids[rows], self.actions[rows]
        )

    def first_engaged_ms(self) -> dict[str, int]:
        """Return when each item was first engaged with."""
        first: dict[str, int] = {}
        for item_id, at_ms in zip(self.item_ids.tolist(), self.occurred_ms.tolist(), strict=True):
            first.setdefault(item_id, at_ms)
        return first

    def events(self, from_ms: int | None = None, until_ms: int | None = None) -> Iterator[Engagement]:
        """Yield engagements of a span of time."""
        first = 0 if from_ms is None else int(np.searchsorted(self.occurred_ms, from_ms))
        last = len(self) if until_ms is None else int(np.searchsorted(self.occurred_ms, until_ms))
        for row in range(first, last):
            yield Engagement(
                event_id=self.event_ids[row],
                user_id=self.user_ids[row],
                item_id=self.item_ids[row],
                action=self.actions[row],
                occurred_at=int(self.occurred_ms[row]),
            )


def read_engagements(path: Path) -> EngagementTable:
    """Return a file of engagements: user_id, item_id, occurred_at_ms, and optionally action, event_id, rating.

    Where there is a column `rating`, only rows of at least `MIN_POSITIVE_RATING` are engagements. MovieLens' `ratings.csv`
    is read as it comes.

    Raises:
        DataFileError: naming file, row and column.
    """
    table = _read(path, ENGAGEMENT_COLUMNS)
    occurred = _times(path, table, "occurred_at_ms")
    order = np.argsort(occurred, kind="stable")
    if "rating" in table:
        ratings = _floats(path, table["rating"], "rating")
        order = order[ratings[order] >= MIN_POSITIVE_RATING]
    users, items = _ids(path, table, "user_id"), _ids(path, table, "item_id")
    events = _ids(path, table, "event_id") if "event_id" in table else None
    prefix = "" if events is not None else digest(path)[:12]  # other files have other events, whatever they are called
    actions = _actions(path, table["action"]) if "action" in table else None
    return EngagementTable(
        users[order],
        items[order],
        occurred[order],
        [str(events[row]) if events is not None else f"{prefix}-{row}" for row in order.tolist()],
        [actions[row] if actions is not None else "click" for row in order.tolist()],
    )


def read_items(path: Path) -> list[Item]:
    """Return a file of items: item_id, published_at_ms, topics (a list, or joined by `|`) or topic, and attributes.

    MovieLens' `movies.csv` is read as it comes; its movies count as published when MovieLens began, in 1995.

    Raises:
        DataFileError: naming file, row and column.
    """
    table = _read(path, ITEM_COLUMNS)
    if "topics" not in table and "topic" not in table:
        raise DataFileError(f"{path}: needs a column topics (a list, or joined by |) or topic")
    names = [name for name in table if name not in ("item_id", "topics", "topic", "published_at_ms")]
    ids, published = _ids(path, table, "item_id"), _times(path, table, "published_at_ms")
    given = table["topics"] if "topics" in table else table["topic"]
    items = []
    for row, topics in enumerate(given):
        attributes = {name: value for name in names if (value := _attribute(table[name][row])) is not None}
        try:
            items.append(
                Item(
                    item_id=ids[row],
                    topics=_topics(path, row, topics),
                    published_at=int(published[row]),
                    attributes=attributes,
                )
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise DataFileError(f"{path} row {row + 1}, {where}: {first['msg']}") from None
    return items


def _text(value: Any) -> str:
    """Return a text, a whole number or UTF-8 as a text, and anything else as an empty one."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _topics(path: Path, row: int, value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    texts = list(map(_text, value if isinstance(value, list | tuple) else [value]))
    if not all(texts):
        raise DataFileError(f"{path} row {row + 1}, topics: must be texts, not {value!r}")
    if not isinstance(value, list | tuple):
        texts = [part.strip() for part in texts[0].split("|") if part.strip()]
    return tuple(dict.fromkeys(texts))


def _attribute(value: Any) -> float | str | None:
    if isinstance(value, bytes):
        value = _text(value)
    if value is None or value == "" or isinstance(value, list | dict):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)[:4096]
    return number if np.isfinite(number) else None


def _read(path: Path, required: tuple[str, ...]) -> Table:
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}
    if not path.is_file():
        raise DataFileError(f"{path}: no such file")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataFileError(f"{path}: the extension must be one of {', '.join(readers)}")
    table = _in_our_names(reader(path))
    missing = [name for name in required if name not in table]
    if missing:
        raise DataFileError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table) or 'none'}")
    return table


def _in_our_names(table: Table) -> Table:
    if "movieid" not in {name.lower() for name in table}:
        return table
    ours = {MOVIELENS.get(name.lower(), name): values for name, values in table.items()}
    if "occurred_at_ms" in ours:
        ours["occurred_at_ms"] = [f"{seconds}000" for seconds in ours["occurred_at_ms"]]
    if "topics" in ours:
        ours["topics"] = ["" if genres == NO_GENRES else genres for genres in ours["topics"]]
        ours["published_at_ms"] = [MOVIELENS_BEGAN_MS] * len(ours["topics"])
    return ours


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataFileError(f"{path}: Parquet needs pyarrow: pip install 'headwater[training]'") from None
    try:
        columns: Table = pyarrow.parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataFileError(f"{path}: not a Parquet file: {error}") from None
    return columns


def _read_csv(path: Path) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines)
            header = next(rows, [])
            table: Table = {name: [] for name in header}
            if len(table) < len(header):
                raise DataFileError(f"{path}: the header names a column twice")
            for number, row in enumerate(rows, start=2):
                if len(row) != len(header):
                    raise DataFileError(f"{path} line {number}: {len(row)} fields, the header has {len(header)}")
                for name, value in zip(header, row, strict=True):
                    table[name].append(value)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"{path}: not a CSV file: {error}") from None
    return table


def _read_jsonl(path: Path) -> Table:
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataFileError(f"{path} line {number}: not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise DataFileError(f"{path} line {number}: must be a JSON object")
                rows.append(row)
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path}: not UTF-8: {error}") from None
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _ids(path: Path, table: Table, name: str) -> npt.NDArray[np.object_]:
    values = table[name]
    ids = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        ids[row] = _text(value)
    for start in range(0, len(ids), IDS_AT_ONCE):
        try:
            IDS.validate_python(ids[start : start + IDS_AT_ONCE].tolist())
        except ValidationError as error:
            row = start + int(error.errors(include_url=False)[0]["loc"][0])
            raise DataFileError(
                f"{path} row {row + 1}, {name}: must be 1 to {MAX_IDENTIFIER} printable characters, not {values[row]!r}"
            ) from None
    return ids


def _times(path: Path, table: Table, name: str) -> npt.NDArray[np.int64]:
    times = np.empty(len(table[name]), dtype=np.int64)
    for row, value in enumerate(table[name]):
        try:
            times[row] = int(value)
        except (TypeError, ValueError, OverflowError):
            raise DataFileError(f"{path} row {row + 1}, {name}: must be epoch milliseconds, not {value!r}") from None
    wrong = np.flatnonzero((times < MIN_EPOCH_MS) | (times > MAX_EPOCH_MS))
    if len(wrong):
        raise DataFileError(
            f"{path} row {wrong[0] + 1}, {name}: must be epoch milliseconds, not {times[wrong[0]]} (seconds, perhaps?)"
        )
    return times


def _actions(path: Path, values: list[Any]) -> list[str]:
    actions = [str(value or "click") for value in values]
    for action in dict.fromkeys(actions):
        try:
            ACTION.validate_python(action)
        except ValidationError:
            raise DataFileError(
                f"{path} row {actions.index(action) + 1}, action: must be a letter a-z, then up to 31 of a-z_-, not {action!r}"
            ) from None
    return actions


def _floats(path: Path, values: list[Any], name: str) -> npt.NDArray[np.float64]:
    try:
        return np.array([float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise DataFileError(f"{path}, {name}: {error}") from None

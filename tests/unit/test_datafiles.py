"""Data files: the three formats say the same, and a broken file is reported by name, row and column."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.datafiles import read_engagements, read_items
from headwater.errors import DataFileError
from headwater.events import Item
from headwater.options import parse_instant, parse_speed
from headwater.replay import in_event_time, known_by

ENGAGEMENTS = [
    {"user_id": 2, "item_id": 10, "occurred_at_ms": 1_700_000_002_000},
    {"user_id": 1, "item_id": 11, "occurred_at_ms": 1_700_000_001_000},
]
ITEMS = [
    {"item_id": 10, "topics": "a|b", "published_at_ms": 1_700_000_000_000, "words": 7},
    {"item_id": 11, "topics": "", "published_at_ms": 1_700_000_009_000, "words": 8},
]


def written(directory: Path, name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    path = directory / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_formats_agree(tmp_path: Path, kind: str) -> None:
    table = read_engagements(written(tmp_path, f"e.{kind}", ENGAGEMENTS))
    assert [(event.user_id, event.item_id) for event in table.events()] == [("1", "11"), ("2", "10")]
    assert [event_id.split("-")[1] for event_id in table.event_ids] == ["1", "0"]
    first, second = read_items(written(tmp_path, f"i.{kind}", ITEMS))
    assert (first.topics, first.attributes) == (("a", "b"), {"words": 7.0})
    assert second.topics == ()


def test_event_ids_follow_from_what_a_file_holds(tmp_path: Path) -> None:
    first, second = tmp_path / "monday", tmp_path / "tuesday"
    for directory in (first, second):
        directory.mkdir()
    monday, again = written(first, "e.csv", ENGAGEMENTS), written(first, "copy.csv", ENGAGEMENTS)
    tuesday = written(second, "e.csv", ENGAGEMENTS[:1])
    assert read_engagements(monday).event_ids == read_engagements(again).event_ids
    assert not {*read_engagements(monday).event_ids} & {*read_engagements(tuesday).event_ids}


def test_lists_of_topics_single_topics_and_ratings(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"item_id": "i", "topics": ["x", "y"], "published_at_ms": 1_700_000_000_000}]
    assert read_items(written(tmp_path, "l.parquet", rows))[0].topics == ("x", "y")
    rows = [{"item_id": "i", "topic": 3, "published_at_ms": 1_700_000_000_000}]
    assert read_items(written(tmp_path, "s.csv", rows))[0].topics == ("3",)
    rated = [{**row, "rating": rating} for row, rating in zip(ENGAGEMENTS, (4.0, 3.5), strict=True)]
    assert [event.user_id for event in read_engagements(written(tmp_path, "r.csv", rated)).events()] == ["2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", "user_id,item_id,occurred_at_ms\n1,2,1700000000000\n"),
        ("e.jsonl", '{"user_id": 1, "item_id": 2, "occurred_at_ms": 1700000000000}\n'),
    ],
)
def test_a_byte_order_mark_is_no_part_of_a_name(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert [event.user_id for event in read_engagements(tmp_path / name).events()] == ["1"]


def test_ids_are_those_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.datafiles.IDS_AT_ONCE", 2)
    ids = ["\U0001fae8", "a b", "\u0300", "x" * 256, "7"]
    rows = [{"user_id": each, "item_id": each, "occurred_at_ms": 1_700_000_000_000} for each in ids]
    table = read_engagements(written(tmp_path, "e.jsonl", rows))
    assert table.user_ids.tolist() == [event.user_id for event in table.events()] == ids
    rows[4]["item_id"] = "\u2028"
    with pytest.raises(DataFileError, match="row 5, item_id"):
        read_engagements(written(tmp_path, "e.jsonl", rows))


def test_texts_may_be_stored_as_bytes(tmp_path: Path) -> None:
    engagements, items = tmp_path / "e.parquet", tmp_path / "i.parquet"
    ids, at_ms = pa.array([b"\xc3\xbc"], pa.binary()), [1_700_000_000_000]
    pq.write_table(pa.table({"user_id": ids, "item_id": ids, "occurred_at_ms": at_ms}), engagements)
    pq.write_table(pa.table({"item_id": ids, "topic": ids, "name": ids, "published_at_ms": at_ms}), items)
    assert [(each.user_id, each.item_id) for each in read_engagements(engagements).events()] == [("ü", "ü")]
    assert [(each.item_id, each.topics, each.attributes) for each in read_items(items)] == [
        ("ü", ("ü",), {"name": "ü"})
    ]
    pq.write_table(pa.table({"user_id": [b"\xff"], "item_id": ids, "occurred_at_ms": at_ms}), engagements)
    with pytest.raises(DataFileError, match="row 1, user_id"):
        read_engagements(engagements)


@pytest.mark.parametrize("topics", [[None], ["a", ["b"]], {"a": 1}, [True], 1.5, [""]])
def test_topics_that_are_no_texts_are_refused(topics: object, tmp_path: Path) -> None:
    rows = [{"item_id": "i", "topics": topics, "published_at_ms": 1_700_000_000_000}]
    with pytest.raises(DataFileError, match="row 1, topics: must be texts, not"):
        read_items(written(tmp_path, "i.jsonl", rows))


def test_attributes_that_are_no_numbers_are_texts(tmp_path: Path) -> None:
    item = {"item_id": "i", "topics": ["x"], "published_at_ms": 1_700_000_000_000}
    at = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
    assert read_items(written(tmp_path, "i.parquet", [{**item, "edited": at}]))[0].attributes == {"edited": str(at)}
    huge = 10**400
    assert read_items(written(tmp_path, "i.jsonl", [{**item, "words": huge}]))[0].attributes == {"words": str(huge)}


def test_movielens_is_read_as_it_comes(tmp_path: Path) -> None:
    ratings, movies = tmp_path / "ratings.csv", tmp_path / "movies.csv"
    ratings.write_text("userId,movieId,rating,timestamp\n1,31,4.5,1260759144\n1,32,2.0,1260759145\n")
    movies.write_text("movieId,title,genres\n31,Toy,Comedy|Family\n32,Other,(no genres listed)\n")
    assert [event.occurred_at for event in read_engagements(ratings).events()] == [1_260_759_144_000]
    assert [item.topics for item in read_items(movies)] == [("Comedy", "Family"), ()]


def test_an_item_is_known_from_its_first_engagement(tmp_path: Path) -> None:
    table = read_engagements(written(tmp_path, "e.csv", ENGAGEMENTS))
    items = known_by(read_items(written(tmp_path, "i.csv", ITEMS)), table)
    order = [event.item_id for event in in_event_time(items, table.events()) if isinstance(event, Item)]
    assert order == ["10", "11"]
    assert items[1].published_at == 1_700_000_001_000


BROKEN = {
    "no column": ("e.csv", "user_id,item_id\n1,2\n", "no column occurred_at_ms"),
    "column twice": ("e.csv", "user_id,item_id,item_id,occurred_at_ms\n1,2,3,1700000000000\n", "names a column twice"),
    "short row": ("e.csv", "user_id,item_id,occurred_at_ms\n1,2\n", "line 2: 2 fields"),
    "time a word": ("e.csv", "user_id,item_id,occurred_at_ms\n1,2,now\n", "row 1, occurred_at_ms"),
    "time out of range": ("e.csv", "user_id,item_id,occurred_at_ms\n1,2,-5\n", "row 1, occurred_at_ms"),
    "seconds for ms": ("e.csv", "user_id,item_id,occurred_at_ms\n1,2,1700000000\n", "row 1, occurred_at_ms.*seconds"),
    "action with spaces": (
        "e.csv",
        "user_id,item_id,occurred_at_ms,action\n1,2,1700000000000,\n1,2,1600000000000,Buy it\n",
        "row 2, action: must be .* not 'Buy it'",
    ),
    "empty user": ("e.csv", "user_id,item_id,occurred_at_ms\n,2,1700000000000\n", "row 1, user_id"),
    "not JSON": ("e.jsonl", "{\n", "line 1: not JSON"),
    "deeply nested": ("e.jsonl", "[" * 100_000, "line 1: not JSON"),
    "unprintable item": (
        "e.csv",
        "user_id,item_id,occurred_at_ms\n" + "1,2,1700000000000\n" * 2 + "1,2\u200b,1700000000000\n",
        "row 3, item_id: must be 1 to 256 printable characters, not '2\\\\u200b'",
    ),
    "not an object": ("e.jsonl", "3\n", "must be a JSON object"),
    "not Parquet": ("e.parquet", "hello", "not a Parquet file"),
    "unknown kind": ("e.xml", "<a/>", "the extension must be one of"),
    "empty": ("e.csv", "", "it has none"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_told(tmp_path: Path, name: str) -> None:
    file_name, content, message = BROKEN[name]
    path = tmp_path / file_name
    path.write_text(content)
    with pytest.raises(DataFileError, match=message) as caught:
        read_engagements(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_items_without_topics_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no such file"):
        read_items(tmp_path / "none.csv")
    (tmp_path / "i.csv").write_text("item_id,published_at_ms\n1,1700000000000\n")
    with pytest.raises(DataFileError, match="topics"):
        read_items(tmp_path / "i.csv")


def test_speeds_and_instants() -> None:
    assert parse_speed("max") is None
    assert parse_speed("60x") == 60.0
    assert parse_instant("--from", "2017-10-09") == parse_instant("--from", "2017-10-09T00:00:00Z")
    assert parse_instant("--from", None) is None

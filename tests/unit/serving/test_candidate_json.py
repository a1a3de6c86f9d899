import json
import math

import numpy as np
import pytest

from headwater.index import Candidates, ItemIds
from serving.candidate_json import json_lines

ODD_IDS = ['"', "\\", '\\"', '","score":1},{', "é", "日本", "\n\t\x01", " ", "a" * 256]


def written(item_ids: list[str], scores: list[float]) -> list[dict[str, object]]:
    line = json.loads(json_lines([b'{"user_id":"u"}'], [Candidates.of(item_ids, np.array(scores, dtype=np.float32))]))
    assert line["user_id"] == "u"
    read: list[dict[str, object]] = line["candidates"]
    return read


def test_what_is_written_is_what_json_reads() -> None:
    scores = [3.14159, -0.5, 0.0, -0.0, 0.000004, -0.000006, 99.99999, 1234.5, -1e6]
    found = written(ODD_IDS, scores)
    assert [each["item_id"] for each in found] == ODD_IDS
    assert [each["score"] for each in found] == pytest.approx(scores, abs=0.00001, rel=1e-6)


def test_answers_that_share_their_items_are_lines() -> None:
    pool = ItemIds(ODD_IDS)
    places: list[list[int]] = [[4, 0, 3], [], [0], [8, 1]]
    answers = [
        Candidates(pool, np.array(positions, np.int64), np.arange(len(positions), dtype=np.float32))
        for positions in places
    ]
    heads = [{"user_id": user_id, "n": n} for n, user_id in enumerate(["}", "\n", "", "u"])]
    lines = json_lines([json.dumps(head).encode() for head in heads], answers).splitlines()
    for line, head, answer, positions in zip(map(json.loads, lines), heads, answers, places, strict=True):
        read = line.pop("candidates")
        assert line == head
        assert [each["item_id"] for each in read] == answer.item_ids == [ODD_IDS[at] for at in positions]
        assert [each["score"] for each in read] == list(range(len(positions)))


def test_no_candidates_are_an_empty_list() -> None:
    assert written([], []) == []


def test_what_is_no_number_is_null() -> None:
    assert [each["score"] for each in written(["a", "b"], [math.nan, math.inf])] == [None, None]


def test_random_scores_keep_five_decimals() -> None:
    scores = (np.random.default_rng(0).standard_normal(1000) * 20).astype(np.float32)
    found = written([f"item-{position}" for position in range(1000)], scores.tolist())
    assert np.abs(np.array([each["score"] for each in found]) - scores).max() <= 0.000006

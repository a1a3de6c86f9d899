import json
import math

import numpy as np
import pytest

from headwater.index import Candidates, ItemIds
from serving.candidate_json import candidates_json

ODD_IDS = ['"', "\\", '\\"', '","score":1},{', "é", "日本", "\n\t\x01", " ", "a" * 256]


def written(item_ids: list[str], scores: list[float]) -> list[dict[str, object]]:
    document = b"[" + candidates_json(Candidates.of(item_ids, np.array(scores, dtype=np.float32))) + b"]"
    read: list[dict[str, object]] = json.loads(document)
    return read


def test_what_is_written_is_what_json_reads() -> None:
    scores = [3.14159, -0.5, 0.0, -0.0, 0.000004, -0.000006, 99.99999, 1234.5, -1e6]
    found = written(ODD_IDS, scores)
    assert [each["item_id"] for each in found] == ODD_IDS
    assert [each["score"] for each in found] == pytest.approx(scores, abs=0.00001, rel=1e-6)


def test_answers_may_share_their_items() -> None:
    pool = ItemIds(ODD_IDS)
    for positions in ([4, 0, 3], [0], [8, 1]):
        candidates = Candidates(pool, np.array(positions), np.arange(len(positions), dtype=np.float32))
        read = json.loads(b"[" + candidates_json(candidates) + b"]")
        assert [each["item_id"] for each in read] == candidates.item_ids == [ODD_IDS[at] for at in positions]


def test_no_candidates_are_an_empty_list() -> None:
    assert written([], []) == []


def test_what_is_no_number_is_null() -> None:
    assert [each["score"] for each in written(["a", "b"], [math.nan, math.inf])] == [None, None]


def test_random_scores_keep_five_decimals() -> None:
    scores = (np.random.default_rng(0).standard_normal(1000) * 20).astype(np.float32)
    found = written([f"item-{position}" for position in range(1000)], scores.tolist())
    assert np.abs(np.array([each["score"] for each in found]) - scores).max() <= 0.000006

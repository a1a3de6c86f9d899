"""An answer in JSON holds what the answer holds, whatever the ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.events import UserCandidates
from headwater.index import Candidates, ItemIds
from serving.retrieval import Answer, Provenance

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9) | st.text('",\\{}:', min_size=1)


@given(st.lists(st.tuples(ids, st.floats(-99, 99, width=32)), max_size=8), ids)
def test_json_says_it_all(found: list[tuple[str, float]], user_id: str) -> None:
    item_ids = [item_id for item_id, _ in found]
    candidates = Candidates.of(item_ids, np.array([score for _, score in found], dtype=np.float32))
    answer = Answer(user_id, candidates, True, Provenance("t", "v1", "v2", None, 12))
    read = UserCandidates.model_validate_json(answer.to_json(request_id="r"))
    assert (read.user_id, read.topic, read.cold_start, read.request_id) == (user_id, "t", True, "r")
    assert (read.bundle_version, read.generation, read.watermark, read.freshness_ms) == ("v1", "v2", None, 12)
    assert [each.item_id for each in read.candidates] == item_ids
    assert [each.score for each in read.candidates] == pytest.approx([score for _, score in found], abs=2e-5)


def test_lines_are_answers_whether_found_together_or_not() -> None:
    scores = np.array([2.0, 1.0], dtype=np.float32)
    together = ItemIds(["a", "b"])
    found = [Candidates(together, np.array([1, 0]), scores), Candidates(together, np.array([0]), scores[:1])]
    found += [Candidates.of(["c", "d"], scores), Candidates.of([], scores[:0])]
    found += found[:2]
    seconds = [Provenance("t", "v1", "v1", None, freshness_ms) for freshness_ms in (0, 1000)]
    answers = [Answer(str(n), each, n % 2 == 0, seconds[n > 3]) for n, each in enumerate(found)]
    assert Answer.to_lines(answers).splitlines() == [answer.to_json() for answer in answers]
    assert Answer.to_lines([]) == b""

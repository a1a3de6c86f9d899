"""The best of many scores equal those of a stable sort."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.index.top import NEVER, top


@given(
    st.lists(st.lists(st.integers(-4, 8), min_size=40, max_size=40), max_size=3), st.integers(0, 40), st.integers(0, 45)
)
@settings(deadline=None)
def test_the_best_come_first_and_equal_ones_by_place(rows: list[list[int]], width: int, k: int) -> None:
    scores = np.array(rows, dtype=np.float32).reshape(len(rows), 40)[:, :width]
    scores[scores == 0] = NEVER
    for row, places, best, count in zip(scores, *top(scores, k), strict=True):
        order = np.argsort(-row, kind="stable")
        expected = order[row[order] > NEVER][:k]
        assert places[:count].tolist() == expected.tolist()
        assert best[:count].tolist() == row[expected].tolist()


def test_what_is_no_number_is_not_found() -> None:
    scores = np.full((2, 100), np.nan, dtype=np.float32)
    scores[0, 7], scores[1, 90:] = 1.0, -1.0
    places, _, counts = top(scores, 5)
    assert counts.tolist() == [1, 5]
    assert places.tolist() == [[7, 0, 0, 0, 0], [90, 91, 92, 93, 94]]

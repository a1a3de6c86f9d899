"""Item activity: decay, order, frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.activity import (
    HALF_LIVES_MS,
    WINDOWS,
    ItemActivity,
    decode_activity,
    decode_activity_frame,
    encode_activity_frame,
    newest_ms,
    summed,
)
from headwater.events import MAX_EPOCH_MS
from tests.folding import counted, encode_activity

START_MS = 1_700_000_000_000


def applied(times: list[int]) -> ItemActivity:
    return counted(ItemActivity(), *((START_MS + at_ms, offset) for offset, at_ms in enumerate(times)))


def test_counts_halve() -> None:
    counts = applied([0, HALF_LIVES_MS[0]]).counts
    assert counts[0] == 1.5


def test_an_applied_offset_changes_nothing() -> None:
    activity = applied([0, 1000])
    assert counted(activity, (START_MS + 5000, 1)) == activity


@given(st.permutations(range(0, 5_000_000, 500_000)))
def test_order_does_not_matter(times: list[int]) -> None:
    shuffled = applied(times)
    np.testing.assert_allclose(shuffled.counts, applied(sorted(times)).counts)
    assert (shuffled.first_ms, shuffled.as_of_ms) == (START_MS + min(times), START_MS + max(times))


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20), st.integers(0, 20))
def test_partitions_add_up(times: list[int], cut: int) -> None:
    whole, parts = applied(times), [applied(times[:cut]), applied(times[cut:])]
    total = summed(parts)
    assert (total.total, total.as_of_ms, total.first_ms) == (whole.total, whole.as_of_ms, whole.first_ms)
    np.testing.assert_allclose(total.counts, whole.counts)


def test_binary_forms_are_lossless() -> None:
    activity = applied([0, 5, 7])
    assert decode_activity(encode_activity(activity)) == activity
    frame = [("a", activity), ("ü/|", applied([1]))]
    encoded = [(item_id, encode_activity(each)) for item_id, each in frame]
    assert decode_activity_frame(encode_activity_frame(encoded)) == frame
    assert newest_ms(encoded[0][1]) == activity.as_of_ms


@pytest.mark.parametrize(
    "data", [b"x", b"\x01\x00a", encode_activity_frame([("a", encode_activity(ItemActivity(total=1)))])[:-1]]
)
def test_a_torn_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_activity_frame(data)


def test_an_activity_beyond_all_times_is_refused() -> None:
    data = encode_activity(ItemActivity((1.0,) * WINDOWS, MAX_EPOCH_MS + 1, 1, 1))
    with pytest.raises(ValueError, match="beyond"):
        decode_activity(data)

"""What serving computes for a user and what training rebuilds from the log are the same, bit by bit."""

from benchmarks.skew import differing


def test_served_feature_vectors_are_rebuilt_from_the_log() -> None:
    assert differing(3000, seed=1) == 0

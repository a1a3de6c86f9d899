"""Streaming features by their definition."""

import numpy as np
import pytest

from headwater.activity import HALF_LIVES_MS, NO_ENGAGEMENT_MS, WINDOWS
from headwater.durations import HOUR_MS
from headwater.features import (
    AGE_FEATURES,
    AGE_SCALES_H,
    END_OF_AGES,
    END_OF_HINGES,
    END_OF_LOGS,
    HINGE_POINTS,
    HINGED_WINDOWS,
    STREAMING,
)
from headwater.streaming_features import streaming_features

NOW_MS = 1_700_000_000_000


def test_each_dimension_is_what_it_says() -> None:
    counts = np.array([[1, 5, 40, 300, 2000], [0, 0, 0, 0, 0]], dtype=np.float32)
    totals, as_of = np.array([5000, 0]), np.array([NOW_MS - 60_000, 0])
    first = np.array([NOW_MS - HOUR_MS, NO_ENGAGEMENT_MS])
    published = np.array([NOW_MS - 2 * HOUR_MS, NOW_MS + HOUR_MS])
    features = streaming_features(counts, totals, as_of, first, published, NOW_MS)
    assert features.shape == (2, STREAMING)
    logs = np.log1p(counts[0] * np.exp2(-60_000 / np.array(HALF_LIVES_MS)))
    published_lately, begun_lately = np.exp(-2.0 / np.array(AGE_SCALES_H)), np.exp(-1.0 / np.array(AGE_SCALES_H))
    assert features[0, :WINDOWS] == pytest.approx(logs, rel=1e-5)
    assert features[0, WINDOWS] == pytest.approx(np.log1p(5000))
    assert features[0, END_OF_LOGS] == pytest.approx(np.log1p(2.0))
    assert features[0, END_OF_LOGS + 1 : END_OF_LOGS + AGE_FEATURES] == pytest.approx(published_lately, rel=1e-5)
    assert features[0, END_OF_LOGS + AGE_FEATURES] == pytest.approx(np.log1p(1.0))
    assert features[0, END_OF_LOGS + AGE_FEATURES + 1 : END_OF_AGES] == pytest.approx(begun_lately, rel=1e-5)
    bent = [max(0.0, logs[window] - hinge) for window in HINGED_WINDOWS for hinge in HINGE_POINTS]
    assert features[0, END_OF_AGES:END_OF_HINGES] == pytest.approx(bent, rel=1e-4, abs=1e-6)
    bent = [logs[window] * lately for window in HINGED_WINDOWS for lately in begun_lately]
    assert features[0, END_OF_HINGES:] == pytest.approx(bent, rel=1e-4)
    assert features[1, END_OF_LOGS] == 0.0, "an item from the future is new"
    assert features[1, END_OF_LOGS + AGE_FEATURES] == 0.0, "and so is one that nobody engaged with"
    assert np.isfinite(features).all()


def test_no_items_have_no_features() -> None:
    empty = np.zeros(0, dtype=np.int64)
    assert streaming_features(np.zeros((0, WINDOWS), dtype=np.float32), empty, empty, empty, empty, NOW_MS).shape == (
        0,
        STREAMING,
    )

"""What verification measures of an index."""

import asyncio

import numpy as np
import pytest

from headwater.index import ItemIndex, item_index
from headwater.index.cells import Cells
from headwater.item_embedding import ItemEmbedding
from serving import verification

D = 8
NOW_MS = 1_700_000_000_000


def test_recall_inside_a_wide_topic_is_that_of_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "PAUSE_S", 0)
    monkeypatch.setattr(item_index, "EXACT_TOPIC_LIMIT", 500)
    random, index = np.random.default_rng(0), ItemIndex(D)
    index.upsert([
        ItemEmbedding(f"i{number}", ("wide", "wider") if number % 2 else ("wider",), NOW_MS - 10**10, embedding)
        for number, embedding in enumerate(random.normal(size=(1100, D)).astype(np.float32))
    ])  # fmt: skip
    index.learn_cells()
    assert index.large_topics() == ["wider", "wide"]
    assert asyncio.run(verification.index_recall(index, NOW_MS, "wider")) == 1.0
    monkeypatch.setattr(Cells, "near", lambda cells, length, embedding, k, wanted: np.arange(k))
    assert asyncio.run(verification.index_recall(index, NOW_MS, "wider")) < 0.5
    assert asyncio.run(verification.index_recall(index, NOW_MS)) == 1.0

"""Rows of id embeddings: the frequency gate, collisions, expiry."""

import numpy as np
import pytest

from headwater.events import Item
from training.corpus import Corpus
from training.id_table import EXPIRY_MS, ExpiringRows, HashedRows, OwnRows

T0 = 1_700_000_000_000


@pytest.fixture
def corpus() -> Corpus:
    corpus = Corpus()
    for number in range(2000):
        corpus.put(Item(item_id=f"i{number}", topics=("t",), published_at=T0))
    return corpus


def engage(corpus: Corpus, items: np.ndarray, at_ms: int) -> None:
    corpus.count(items, np.full(len(items), at_ms), np.zeros((len(items), 10), dtype=np.int64))


def test_an_item_has_a_row_of_its_own_once_it_has_enough_engagements(corpus: Corpus) -> None:
    table = OwnRows(corpus, 2)
    engage(corpus, np.array([1, 1, 2]), T0)
    assert table.rows(np.array([[0, 1], [2, 3]])).tolist() == [[0, 1], [0, 0]]
    assert table.size >= len(corpus)


def test_hashed_rows_collide_and_leave_row_zero_alone() -> None:
    rows = HashedRows(64).rows(np.arange(2001))
    assert rows[0] == 0
    assert rows[1:].min() >= 1
    assert rows.max() <= 64
    assert np.bincount(rows[1:]).max() < 60


def test_rows_of_items_long_without_engagement_go_to_others(corpus: Corpus) -> None:
    table = ExpiringRows(corpus, 4, 1)
    early, late = np.arange(1, 5), np.arange(11, 14)
    engage(corpus, early, T0)
    assert len(table.admit(early, T0)) == 4
    assert len(set(table.rows(early).tolist())) == 4
    engage(corpus, late, T0 + 1000)
    assert len(table.admit(late, T0 + 1000)) == 0, "nothing has expired yet"
    assert table.rows(late).tolist() == [0, 0, 0]
    then = T0 + EXPIRY_MS + 2000
    engage(corpus, late, then)
    changed = table.admit(late, then)
    assert sorted(changed.tolist()) == sorted(table.rows(late).tolist())
    assert table.rows(early).tolist() == [0, 0, 0, 0]

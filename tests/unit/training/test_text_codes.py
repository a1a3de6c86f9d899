"""Codes of texts: the real encoder, its quantisation, and the rows they give to items."""

import numpy as np
import pytest

from headwater.errors import UsageError
from headwater.events import Item
from training.corpus import Corpus
from training.id_table import CodedRows, OwnRows
from training.text_codes import CENTRES, PARTS, codes_of, encoded, quantised

T0 = 1_700_000_000_000


def item(number: int, **attributes: str | float) -> Item:
    return Item(item_id=f"i{number}", topics=("t",), published_at=T0, attributes=attributes)


def test_what_reads_alike_is_encoded_alike() -> None:
    embeddings = encoded(["A storm hits the coast", "Coastal town struck by a storm", "New chess champion crowned"])
    assert embeddings[0] @ embeddings[1] > 0.5 > embeddings[0] @ embeddings[2]


def test_neighbours_share_more_codes_than_strangers() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(600, 4 * PARTS)).astype(np.float32)
    near = centres + 0.02 * random.normal(size=centres.shape).astype(np.float32)
    codes = quantised(np.concatenate((centres, near)), seed=0)
    assert codes.min() >= 1
    assert codes.max() <= PARTS * CENTRES
    first, second = np.split(codes, 2)
    assert (first == second).mean() > 3 * (first == np.roll(second, 1, axis=0)).mean()
    assert len(np.unique((codes - 1) // CENTRES, axis=0)) == 1, "each part has numbers of its own"


def test_items_without_text_have_no_codes() -> None:
    codes = codes_of([item(1, title="Toy Story"), item(2, words=310.0), item(3, title="Toy Story")])
    assert codes[1].tolist() == [0] * PARTS
    assert codes[0].tolist() == codes[2].tolist()


def test_a_catalogue_without_text_is_told() -> None:
    with pytest.raises(UsageError, match="no attribute of any item is a string"):
        codes_of([item(1, words=310.0)])


def test_an_item_has_its_own_row_beside_those_of_its_text() -> None:
    corpus = Corpus()
    corpus.put(item(1, title="Toy Story"))
    corpus.put(item(2, title="Heat"))
    corpus.count(np.array([1, 1]), np.full(2, T0), np.zeros((2, 10), dtype=np.int64))
    table = CodedRows(corpus, OwnRows(corpus, 2))
    rows = table.rows(np.array([[0, 1], [2, 1]]))
    assert rows.shape == (2, 2, PARTS + 1)
    assert not rows[0, 0].any()
    assert rows[0, 1, -1] == PARTS * CENTRES + 1
    assert rows[1, 0, -1] == 0
    assert rows.max() <= table.size
    corpus.put(item(3, title="Casino"))
    assert table.rows(np.array([3])).all(axis=1).tolist() == [False], "codes, but no row of its own yet"
    assert table.rows(np.array([3]))[0, :-1].all()

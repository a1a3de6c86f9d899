"""Which topics are asked for at training, and which items answer wrongly."""

from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest

from headwater.activity import HALF_LIVES_MS
from headwater.events import Engagement, Item
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.corpus import RECENT, Corpus
from training.examples import Logged, build_examples
from training.sampling import LiveItems, is_held_out, sample_conditions, sample_items

T0 = 1_700_000_000_000
NARROW, BROAD = "narrow", "broad"


@pytest.fixture
def corpus() -> Corpus:
    corpus = Corpus()
    for number in range(100):
        topics = (BROAD, NARROW) if number < 10 else (BROAD,)
        corpus.put(Item(item_id=f"i{number}", topics=topics, published_at=T0))
    corpus.put(Item(item_id="bare", topics=(), published_at=T0))
    return corpus


@pytest.mark.parametrize(
    ("sampling", "low", "high"), [("random", 0.4, 0.6), ("popular", 0.0, 0.2), ("stratified", 0.8, 1.0)]
)
def test_how_often_the_narrow_topic_is_asked_for(corpus: Corpus, sampling: str, low: float, high: float) -> None:
    items = np.tile(np.arange(1, 101), 50)
    rows, conditions = sample_conditions(corpus, items, np.random.default_rng(0), sampling=sampling)
    assert rows.tolist() == list(range(len(items)))
    both = items <= 10
    assert low < (conditions[both] == corpus.topic_index[NARROW]).mean() < high
    assert set(conditions[~both].tolist()) == {corpus.topic_index[BROAD]}


def test_several_conditions_of_one_item_differ(corpus: Corpus) -> None:
    items = np.array([1, 50, 101])
    rows, conditions = sample_conditions(corpus, items, np.random.default_rng(0), most=8, unconditioned=True)
    asked = {item: sorted(conditions[rows == row].tolist()) for row, item in enumerate(items.tolist())}
    assert asked == {1: [0, 1, 2], 50: [0, 1], 101: [0]}
    rows, conditions = sample_conditions(corpus, items[2:], np.random.default_rng(0))
    assert (rows.tolist(), conditions.tolist()) == ([0], [0])


def test_inclusion_probabilities_are_those_of_the_draws(corpus: Corpus) -> None:
    corpus.count(np.array([1] * 50), np.full(50, T0), np.zeros((50, 10), dtype=np.int64))
    random = np.random.default_rng(0)
    included = np.zeros(102)
    expected = np.zeros(102)
    popularity = partial(corpus.popularity, now_ms=T0)
    live = LiveItems(corpus, T0, None, popularity)
    for _ in range(400):
        positives = random.choice(np.arange(1, 101), 8, p=np.where(np.arange(1, 101) == 1, 60.1, 0.1) / (60.1 + 9.9))
        drawn = sample_items(corpus, positives, np.array([2] * 8), live, popularity, random, 10, 4)
        included[drawn.items] += 1
        expected[drawn.items] = np.exp(drawn.log_q)
    assert included[1] / 400 == pytest.approx(expected[1], abs=0.1)
    assert included[2:11].mean() / 400 == pytest.approx(expected[2:11].mean(), abs=0.1)
    assert included[50:100].mean() / 400 == pytest.approx(expected[50:100].mean(), abs=0.05)


def test_what_was_popular_is_not_for_ever(corpus: Corpus) -> None:
    half_life_ms = HALF_LIVES_MS[RECENT]
    corpus.count(np.array([1, 1, 2]), np.array([T0, T0, T0 + half_life_ms]), np.zeros((3, 10), dtype=np.int64))
    assert corpus.popularity(np.arange(4), T0 + half_life_ms).tolist() == pytest.approx([0.0, 1.0, 1.0, 0.0])
    assert corpus.popularity(np.array([1]), T0 + 20 * half_life_ms) < 1e-5


def test_what_the_feature_store_forgot_begins_anew(corpus: Corpus) -> None:
    never, ever = deepcopy(corpus), np.zeros((2, 10), dtype=np.int64)
    corpus.count(np.array([1, 2]), np.array([T0, T0 + 1000]), ever)
    corpus.forget_activity(T0 + 1)
    corpus.count(np.array([1]), np.array([T0 + 2000]), ever[:1])
    never.count(np.array([2, 1]), np.array([T0 + 1000, T0 + 2000]), ever)
    items = np.arange(4)
    np.testing.assert_array_equal(corpus.streaming(items, T0 + 3000), never.streaming(items, T0 + 3000))
    assert corpus.totals[:4].tolist() == never.totals[:4].tolist()


def test_what_is_live_is_looked_for_again_as_time_passes(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_ms: list[int] = []
    live = corpus.live

    def looked(now_ms: int, live_for_ms: int | None) -> Any:
        looked_ms.append(now_ms)
        return live(now_ms, live_for_ms)

    monkeypatch.setattr(corpus, "live", looked)
    log = [
        Logged(Engagement(event_id=f"e{n}", user_id=f"u{n}", item_id="i1", occurred_at=T0 + 20_000 * n), 0, n)
        for n in range(5)
    ]
    settings = LearningSettings(batch=1, uniform=5, same_condition=5)
    batches = list(prepare(corpus, build_examples(Users(), corpus, log), settings, np.random.default_rng(0)))
    assert len(batches) == len(log)
    assert looked_ms == [T0, T0 + 40_000, T0 + 80_000]


def test_late_engagements_are_learned_from_like_others(corpus: Corpus) -> None:
    late_ms = 9 * 86_400_000
    corpus.count(np.arange(1, 101), np.full(100, T0 + late_ms), np.zeros((100, 10), dtype=np.int64))
    corpus.put(Item(item_id="fresh", topics=(BROAD,), published_at=T0 + late_ms))
    log = [Logged(Engagement(event_id="e", user_id="u", item_id="i3", occurred_at=T0), 0, 0)]
    settings = LearningSettings(batch=1, uniform=5_000, same_condition=10)
    (batch,) = prepare(corpus, build_examples(Users(), corpus, log), settings, np.random.default_rng(0))
    assert np.isfinite(batch.sampled.log_q).all()
    assert corpus.item_index["fresh"] in batch.sampled.items
    assert np.isfinite(np.concatenate(batch.dynamic.streaming)).all()


def test_items_of_the_users_past_are_no_negatives(corpus: Corpus) -> None:
    log = [
        Logged(Engagement(event_id=f"e{n}", user_id="u", item_id=f"i{n % 5}", occurred_at=T0 + n * 1000), 0, n)
        for n in range(20)
    ]
    examples = build_examples(Users(), corpus, log)
    settings = LearningSettings(batch=20, uniform=50, same_condition=10)
    (batch,) = prepare(corpus, examples, settings, np.random.default_rng(0))
    rows, positions = batch.seen
    items = batch.sampled.items[positions]
    assert len(rows)
    for row, item in zip(rows.tolist(), items.tolist(), strict=True):
        assert item in batch.examples.histories[batch.rows[row]]
        assert item != batch.examples.items[batch.rows[row]]
    assert sum(batch.dynamic.slices) == len(batch.conditions) == 2 * len(batch.examples)
    assert np.all(np.diff(batch.dynamic.covisits.owners) >= 0)


def test_a_share_of_the_topics_can_be_held_out(corpus: Corpus) -> None:
    topics = np.arange(1, 2001)
    held_out = is_held_out(topics, 0.1)
    assert held_out.mean() == pytest.approx(0.1, abs=0.02)
    assert not is_held_out(np.array([0]), 0.0).any()
    for number in range(300):
        corpus.add_topic(f"t{number}")
    number = int(np.flatnonzero(is_held_out(np.arange(3, 300), 0.1))[0]) + 3
    corpus.put(Item(item_id="i0", topics=(corpus.topics[number - 1], BROAD), published_at=T0))
    _, conditions = sample_conditions(corpus, np.ones(99, dtype=np.int64), np.random.default_rng(0), held_out=0.1)
    assert number not in conditions

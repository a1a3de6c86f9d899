from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from headwater.durations import HOUR_MS
from headwater.events import Engagement, Item
from headwater.simulator import World
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.corpus import Corpus
from training.examples import Examples, Logged, build_examples
from training.learner import Learner
from training.losses import cross_entropy
from training.ranker import FAR

LEARNING = LearningSettings(batch=64, uniform=16, same_condition=16, min_engagements=2, id_rows=500)


def test_losses_and_gradients_are_those_of_torch() -> None:
    logits = torch.randn(5, 9, requires_grad=True)
    with torch.no_grad():
        logits[torch.arange(5), torch.arange(5)] = FAR
    positives = torch.tensor([1, 2, 8, 0, 7])
    ours, theirs = cross_entropy(logits, positives), functional.cross_entropy(logits, positives)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(3.0 * loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0].diagonal().any()


def learned(learner: Learner, examples: Examples) -> None:
    for batch in prepare(learner.corpus, examples, learner.settings, np.random.default_rng(0)):
        learner.step(batch)


def test_tables_grow_alike_in_every_process() -> None:
    grown: list[dict[str, torch.Tensor]] = []
    for _ in range(2):
        learner = Learner(Corpus(), LEARNING)
        torch.manual_seed(len(grown))  # whatever was drawn before
        for number in range(3_000):
            learner.corpus.put(Item(item_id=str(number), topics=(f"t{number % 99}",), published_at=10**12))
        learner.fit_vocabulary()
        grown.append(learner.towers.state_dict())
    assert all(grown[0][name].equal(grown[1][name]) for name in grown[0])


@pytest.mark.parametrize("ids", ["own", "expiring"])
def test_items_that_stay_mean_under_new_numbers_what_they_meant(ids: str) -> None:
    corpus, log = Corpus(), list[Engagement]()
    for event in World(seed=3, users=50, topics=4, items_per_hour=60, engagements_per_hour=900).step(HOUR_MS):
        if isinstance(event, Item):
            corpus.put(event)
        else:
            assert isinstance(event, Engagement)
            log.append(event)
    logged = [Logged(event, 0, offset) for offset, event in enumerate(log)]
    learner, users = Learner(corpus, replace(LEARNING, ids=ids)), Users()
    learned(learner, build_examples(users, corpus, logged))
    since_ms = log[-1].occurred_at - HOUR_MS // 10
    for item in corpus.items:
        corpus.remove(item.item_id)
    numbers = corpus.needed(since_ms)
    assert 10 < len(numbers) < len(corpus)
    now_ms = np.full(len(numbers), log[-1].occurred_at)
    before = learner.embed_items(numbers), corpus.streaming(numbers, int(now_ms[0]))
    weights = learner.towers.user.history.weight[torch.from_numpy(learner.ids.rows(numbers))].detach()

    kept, fresh = corpus.of(numbers, since_ms), np.arange(1, len(numbers) + 1)
    learner.renumber(kept, numbers)

    assert [corpus.items[number - 1] for number in numbers.tolist()] == kept.items
    assert not kept.live(int(now_ms[0]), None).size, "what is gone stays gone"
    known = torch.from_numpy(learner.ids.rows(fresh))
    assert known.any()
    np.testing.assert_array_equal(learner.embed_items(fresh), before[0])
    np.testing.assert_array_equal(kept.streaming(fresh, int(now_ms[0])), before[1])
    assert learner.towers.user.history.weight[known][known > 0].equal(weights[known > 0])
    histories = numbers[-10:][None, :]
    active = np.isin(histories, corpus.covisits.active(since_ms))
    was = corpus.covisits.features(np.where(active, histories, 0), now_ms[:1])
    now = kept.covisits.features(np.where(active, np.searchsorted(numbers, histories) + 1, 0), now_ms[:1])
    assert len(was.items) > 1
    np.testing.assert_array_equal(numbers[now.items - 1], was.items)
    np.testing.assert_array_equal(now.values, was.values)
    learned(learner, build_examples(users, kept, [logged[-1]._replace(offset=len(logged))]))

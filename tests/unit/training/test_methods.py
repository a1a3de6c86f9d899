"""Every method by name trains, embeds and can be exported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headwater.bundle import Bundle
from headwater.covisit_features import COVISITS
from headwater.durations import HOUR_MS
from headwater.errors import BundleRefused, UsageError
from headwater.events import Engagement, Item
from headwater.features import STREAMING
from headwater.query_features import Query, encode_queries
from headwater.simulator import World
from headwater.user_state import EMPTY
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.corpus import Corpus
from training.evaluation.prequential import learners_of
from training.examples import Examples, Logged, build_examples
from training.export import export_bundle
from training.learner import Learner
from training.methods import METHODS
from training.sampling import is_held_out

SETTINGS = LearningSettings(batch=64, uniform=32, same_condition=32)


@pytest.fixture(scope="module")
def world() -> tuple[Corpus, Examples]:
    corpus = Corpus()
    log: list[Logged] = []
    for event in World(seed=3, users=50, topics=4, items_per_hour=30, engagements_per_hour=600).step(HOUR_MS):
        if isinstance(event, Item):
            corpus.put(event.model_copy(update={"attributes": {"title": f"News {event.item_id}"}}))
        else:
            assert isinstance(event, Engagement)
            log.append(Logged(event, 0, len(log)))
    return corpus, build_examples(Users(), corpus, log)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns(name: str, world: tuple[Corpus, Examples]) -> None:
    corpus, examples = world
    corpus.restore(Corpus().activity())
    settings = replace(SETTINGS, **METHODS[name])
    learner = Learner(corpus, settings)
    before = {key: value.clone() for key, value in learner.towers.state_dict().items()}
    losses = [learner.step(batch) for batch in prepare(corpus, examples, settings, np.random.default_rng(0))]
    assert np.isfinite(losses).all()
    assert any(not value.equal(before[key]) for key, value in learner.towers.state_dict().items())
    users = learner.embed_users(examples[:3].features, np.array([0, 1, 2]))
    items = learner.embed_items(np.array([1, 2]))
    personas = (settings.personas - 1) * settings.dimension // 2
    assert users.shape == (3, settings.dimension + STREAMING + COVISITS + personas)
    assert items.shape == (2, settings.dimension)
    assert np.isfinite(learner.static_scores(users[0], items)).all()


def test_a_topic_that_training_never_asked_for_pulls_as_the_others_do(
    world: tuple[Corpus, Examples], tmp_path: Path
) -> None:
    corpus, examples = world
    corpus.restore(Corpus().activity())
    topics = np.arange(1, len(corpus.topics) + 1)
    settings = replace(SETTINGS, held_out=0.3)
    learner, held_out = Learner(corpus, settings), is_held_out(topics, settings.held_out)
    assert 0 < held_out.sum() < len(topics)
    for batch in prepare(corpus, examples, settings, np.random.default_rng(0)):
        learner.step(batch)
    trained = {name: weights.clone() for name, weights in learner.towers.state_dict().items()}
    features = examples[np.zeros(len(topics), dtype=np.int64)].features
    directions = learner.embed_users(features, topics)[:, : learner.towers.sizes.steered]
    everybody = trained["user.start"].numpy()[: directions.shape[1]]
    pulls = ((directions - everybody) * trained["item.about.weight"][topics].numpy()).sum(axis=1)
    assert pulls[held_out] == pytest.approx(pulls[~held_out].mean(), rel=1e-5)
    assert not trained["user.fusion.aside.weight"][topics[held_out]].any()
    # Nothing of it stays in what is trained, and it is in what is served.
    assert all(weights.equal(trained[name]) for name, weights in learner.towers.state_dict().items())
    bundle = Bundle.load(export_bundle(learner, tmp_path, [EMPTY], int(examples.times_ms[-1]), {}, {}))
    queries = [Query(EMPTY, topic) for topic in corpus.topics]
    served = bundle.user_tower.embed(encode_queries(queries, int(examples.times_ms[-1]), bundle.vocabulary))
    assert served[:, : bundle.manifest.topical] == pytest.approx(directions, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("fusion-")])
def test_every_fusion_is_served(name: str, world: tuple[Corpus, Examples], tmp_path: Path) -> None:
    corpus, examples = world
    learner = Learner(corpus, replace(SETTINGS, **METHODS[name]))
    path = export_bundle(learner, tmp_path, [EMPTY], int(examples.times_ms[-1]), {}, {})
    assert Bundle.load(path).manifest.fusion == METHODS[name]["fusion"]


def test_a_bundle_off_its_towers_is_refused_and_leaves_nothing(
    world: tuple[Corpus, Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, examples = world
    monkeypatch.setattr("training.export.PARITY", -1.0)
    with pytest.raises(BundleRefused, match=r"user_tower\.onnx"):
        export_bundle(Learner(corpus, SETTINGS), tmp_path, [EMPTY], int(examples.times_ms[-1]), {}, {})
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_method_is_told() -> None:
    with pytest.raises(UsageError, match="no method nothing; there are learned-retrieval, conditional"):
        learners_of(["nothing"], Corpus(), SETTINGS)

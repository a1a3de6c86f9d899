"""Quality, on a small simulated world with a known truth."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from headwater.bundle import Bundle
from headwater.durations import HOUR_MS
from headwater.errors import BundleRefused
from headwater.events import Engagement, Item
from headwater.features import encode_items
from headwater.query_features import Query, encode_queries
from headwater.simulator import World
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.corpus import Corpus
from training.evaluation.point_in_time import PointInTime
from training.evaluation.popularity import SlidingCounts
from training.evaluation.prequential import learn
from training.evaluation.ranking import Ranking
from training.evaluation.scorers import BundleScorer, LearnerScorer
from training.examples import Examples, Logged, build_examples
from training.export import export_bundle
from training.learner import Learner
from training.sampling import sample_conditions

SETTINGS = LearningSettings(batch=128, uniform=64, same_condition=64)


@pytest.fixture(scope="module")
def world() -> tuple[Corpus, Examples, Users]:
    simulated = World(seed=1, users=400, topics=8, items_per_hour=40, engagements_per_hour=4000)
    corpus = Corpus()
    log: list[Logged] = []
    for event in simulated.step(2 * HOUR_MS):
        if isinstance(event, Item):
            corpus.put(event)
        else:
            assert isinstance(event, Engagement)
            log.append(Logged(event, 0, len(log)))
    users = Users()
    return corpus, build_examples(users, corpus, log), users


def test_one_batch_can_be_learned_by_heart(world: tuple[Corpus, Examples, Users]) -> None:
    corpus, examples, _ = world
    corpus.restore(Corpus().activity())
    corpus.count(examples.items, examples.times_ms, examples.predecessors)
    learner = Learner(corpus, replace(SETTINGS, learning_rate=0.01, id_learning_rate=0.05))
    (batch,) = prepare(
        corpus, examples[-64:], replace(SETTINGS, uniform=32, same_condition=16), np.random.default_rng(0)
    )
    losses = [learner.step(batch) for _ in range(150)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_condition_keeps_retrieval_on_topic_without_a_filter(
    world: tuple[Corpus, Examples, Users], tmp_path: Path
) -> None:
    corpus, examples, users = world
    corpus.restore(Corpus().activity())
    cut = len(examples) - 400
    learners = {
        "conditional": Learner(corpus, SETTINGS),
        "unconditional": Learner(corpus, replace(SETTINGS, fusion="alone")),
    }
    learn(learners, corpus, examples[:cut], np.random.default_rng(0))
    states = [users.record(user_id).state for user_id in users.rows]
    path = export_bundle(learners["conditional"], tmp_path, states, int(examples.times_ms[-1]), {}, {})
    bundle = Bundle.load(path)

    rows = np.arange(cut, len(examples))[~examples.repeats[cut:]]
    asked = examples[rows]
    _, conditions = sample_conditions(corpus, asked.items, np.random.default_rng(0))
    ranking = Ranking(corpus, None, overfetch=("unconditional",))
    counts = SlidingCounts(examples.items, examples.times_ms, len(corpus) + 1)
    scorers = {name: LearnerScorer(learner) for name, learner in learners.items()}
    ranking.rank(
        {**scorers, "exported": BundleScorer(bundle, corpus)},
        asked,
        conditions,
        asked.histories,
        PointInTime(corpus, examples, counts, rows, cut),
    )
    figures = {name: row.figures() for name, row in ranking.rows.items()}
    conditional, unconditional = figures["conditional"], figures["unconditional"]
    assert conditional["topic_match@50"] > 0.9
    assert conditional["mrr"] > 1.3 * unconditional["mrr"]
    assert conditional["mrr"] > 0.9 * figures["popularity-1h"]["mrr"]
    assert abs(figures["exported"]["mrr"] - conditional["mrr"]) < 0.02


def test_a_bundle_is_refused_when_anything_about_it_changed(
    world: tuple[Corpus, Examples, Users], tmp_path: Path
) -> None:
    corpus, examples, users = world
    states = [users.record(user_id).state for user_id in users.rows]
    path = export_bundle(Learner(corpus, SETTINGS), tmp_path, states, int(examples.times_ms[-1]), {}, {})
    bundle = Bundle.load(path)
    now_ms = int(examples.times_ms[-1])
    queries = encode_queries(
        [Query(states[0], topic) for topic in ("topic-0", "topic-1", "never seen")], now_ms, bundle.vocabulary
    )
    user = bundle.user_tower.embed(queries)
    assert not np.allclose(user[0], user[1])
    assert bundle.item_tower.embed(encode_items(corpus.items[:3], bundle.vocabulary)).shape == (3, 64)
    for name in ("user_tower.onnx", "item_tower.onnx", "vocabulary.json", "golden.npz"):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content + b" ")
        with pytest.raises(BundleRefused, match="sha256"):
            Bundle.load(path)
        (path / name).unlink()
        with pytest.raises(BundleRefused, match="missing"):
            Bundle.load(path)
        (path / name).write_bytes(content)
    Bundle.load(path)
    with pytest.raises(BundleRefused, match=f"renamed: its manifest.json says that it is {path.name}"):
        Bundle.load(copytree(path, path.with_name("renamed")))
    (path / "manifest.json").write_text("{}")
    with pytest.raises(BundleRefused, match="broken"):
        Bundle.load(path)

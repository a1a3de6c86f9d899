"""The leave-last-out protocol: every user's last engagement is held out, for data without a common clock."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from headwater.datafiles import EngagementTable
from headwater.events import Item
from headwater.query_features import encode_users
from headwater.users import Users
from training.batches import LearningSettings
from training.corpus import Corpus
from training.evaluation.baselines import Baseline, Fit, installed_baselines
from training.evaluation.point_in_time import PointInTime
from training.evaluation.popularity import SlidingCounts
from training.evaluation.prequential import Progress, learn, learners_of
from training.evaluation.ranking import Ranking
from training.evaluation.scorers import LearnerScorer
from training.examples import Examples, Logged, build_examples
from training.learner import Learner
from training.methods import DEFAULT, UNCONDITIONAL
from training.sampling import is_held_out

Ints = npt.NDArray[np.int64]

EPOCHS = 8
ID_LEARNING_RATE = 3e-3
DIMENSION = 128
UNIFORM, SAME_CONDITION = 3000, 500


def evaluate_leave_last_out(
    engagements: EngagementTable,
    items: list[Item],
    max_queries: int,
    settings: LearningSettings,
    progress: Progress,
    methods: Sequence[str] = DEFAULT,
    epochs: int = EPOCHS,
    untrained: float = 0.0,
) -> Ranking:
    """Return the ranking of every method and baseline; one query for each topic of each held-out item.

    Args:
        engagements, items: The data.
        max_queries: Queries are sampled evenly down to this number.
        settings: Of all methods.
        progress: Called with (stage, done, total).
        methods: Names of `METHODS`.
        epochs: Passes over the log.
        untrained: Share of the topics whose items (by their first topic) no model is trained on; only they are asked
            for then. Counts and histories know them.

    All items are candidates at all times, and every popularity window is the whole log. Counts are those of the whole
    log throughout, so that the examples can be learned in any order: neighbours in time belong to one user and so are
    poor in-batch negatives. Co-visitation would then contain what it predicts, and is left out.
    """
    fits = installed_baselines()
    corpus, settings = _corpus(items), _learning_settings(settings)
    held_out = _last_rows(engagements)
    users = Users()
    kept = (Logged(engagement, 0, row) for row, engagement in enumerate(engagements.events()) if row not in held_out)
    log = build_examples(users, corpus, kept)
    learners = learners_of(methods, corpus, settings)
    random = np.random.default_rng(settings.seed)
    cold = is_held_out(corpus.item_topics[:, 0], untrained) & (corpus.item_topics[:, 0] > 0)
    _train(learners, corpus, log, cold, random, epochs, progress)

    asked, conditions, owners = _queries(engagements, sorted(held_out), corpus, users)
    chosen = _sample_queries(asked.items, cold if untrained else np.ones_like(cold), max_queries, random)
    asked, conditions, owners = asked[chosen], conditions[chosen], owners[chosen]
    seen = _seen(engagements, held_out, corpus, asked.items, owners)
    baselines = _baselines(fits, engagements, held_out, corpus, settings.seed)
    ranking = Ranking(corpus, None, overfetch=(UNCONDITIONAL,), baselines=baselines)
    counts = SlidingCounts(log.items, log.times_ms, len(corpus) + 1, whole=True)
    counts.advance(len(log), 0)
    rows = np.full(len(asked), len(log) - 1)
    scorers = {name: LearnerScorer(learner) for name, learner in learners.items()}
    ranking.rank(scorers, asked, conditions, seen, PointInTime(corpus, log, counts, rows, len(log)))
    return ranking


def _learning_settings(settings: LearningSettings) -> LearningSettings:
    """Return the settings for data that lack a common clock."""
    return replace(
        settings,
        live_for_ms=None,
        covisits=False,
        uniform=UNIFORM,
        same_condition=SAME_CONDITION,
        id_learning_rate=ID_LEARNING_RATE,
        dimension=DIMENSION,
    )


def _corpus(items: list[Item]) -> Corpus:
    """Return a corpus in which all items were always published."""
    corpus = Corpus()
    for item in items:
        corpus.put(item.model_copy(update={"published_at": 0}))
    return corpus


def _train(
    learners: Mapping[str, Learner],
    corpus: Corpus,
    log: Examples,
    cold: npt.NDArray[np.bool_],
    random: np.random.Generator,
    epochs: int,
    progress: Progress,
) -> None:
    """Count the log, and train on it in any order; neither on the cold items (by number) nor with them as negatives."""
    corpus.count(log.items, log.times_ms, log.predecessors)
    corpus.first_ms[:] = 0  # as publication is: ages would show which items were there before an example
    learned = log[np.flatnonzero(~cold[log.items])]
    corpus.alive &= ~cold
    for epoch in range(epochs):
        learn(learners, corpus, learned[random.permutation(len(learned))], random, counted=True)
        progress("epochs", epoch + 1, epochs)
    corpus.alive |= cold


def _sample_queries(
    items: Ints, eligible: npt.NDArray[np.bool_], max_queries: int, random: np.random.Generator
) -> Ints:
    """Return which queries to rank, ascending, given their items (Q,) and the eligible ones by number; sampled evenly."""
    chosen = np.flatnonzero(eligible[items])
    if len(chosen) > max_queries:
        chosen = chosen[np.sort(random.choice(len(chosen), max_queries, replace=False))]
    return chosen


def _baselines(
    fits: Mapping[str, Fit], engagements: EngagementTable, held_out: Mapping[int, None], corpus: Corpus, seed: int
) -> dict[str, Baseline]:
    """Return the baselines, fitted on all engagements but those held out."""
    rows = np.array([row for row in range(len(engagements)) if row not in held_out], dtype=np.int64)
    _, users = np.unique(engagements.user_ids[rows].astype(str), return_inverse=True)
    items = corpus.numbers(engagements.item_ids[rows])
    return {name: fit(users, items, len(corpus) + 1, seed) for name, fit in fits.items()}


def _last_rows(engagements: EngagementTable) -> dict[int, None]:
    """Return the row of each user's last engagement, of users that have another one."""
    rows: dict[str, list[int]] = {}
    for row, user_id in enumerate(engagements.user_ids.tolist()):
        rows.setdefault(user_id, []).append(row)
    return {each[-1]: None for each in rows.values() if len(each) > 1}


def _queries(
    engagements: EngagementTable, held_out: list[int], corpus: Corpus, users: Users
) -> tuple[Examples, np.ndarray, np.ndarray]:
    """Return queries, their conditions and user ids, (Q,) each; of users with a past of known items."""
    times, items, conditions, owners = [], [], [], []
    for row in held_out:
        user_id = engagements.user_ids[row]
        number = corpus.item_index.get(engagements.item_ids[row], 0)
        for topic in corpus.item_topics[number]:
            if topic and user_id in users.rows:
                times.append(int(engagements.occurred_ms[row]))
                items.append(number)
                conditions.append(topic)
                owners.append(user_id)
    asked, times_ms = users.states[[users.rows[user_id] for user_id in owners]], np.array(times, dtype=np.int64)
    names = corpus.numbers(users.items.texts), corpus.topic_numbers(users.topics.texts)
    features = encode_users(asked, times_ms, *names)
    repeats = np.zeros(len(items), dtype=np.bool_)
    predecessors = features["history_items"].astype(np.int64)
    examples = Examples(np.array(items, dtype=np.int64), times_ms, repeats, predecessors, features)
    return examples, np.array(conditions, dtype=np.int64), np.array(owners, dtype=object)


def _seen(
    engagements: EngagementTable, held_out: dict[int, None], corpus: Corpus, items: np.ndarray, owners: np.ndarray
) -> list[np.ndarray]:
    """Return all items that each query's user engaged with, except the held-out one: owners (Q,), items (Q,)."""
    by_user: dict[str, set[int]] = {}
    for row, (user_id, item_id) in enumerate(
        zip(engagements.user_ids.tolist(), engagements.item_ids.tolist(), strict=True)
    ):
        if row not in held_out:
            by_user.setdefault(user_id, set()).add(corpus.item_index.get(item_id, 0))
    asked = zip(owners.tolist(), items.tolist(), strict=True)
    return [np.fromiter(by_user[user_id] - {number}, dtype=np.int64) for user_id, number in asked]

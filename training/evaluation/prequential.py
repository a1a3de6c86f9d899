"""The prequential protocol: warm up, then rank, learn, rank, learn, in order of time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headwater.datafiles import EngagementTable
from headwater.errors import UsageError
from headwater.events import Item
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.corpus import Corpus
from training.evaluation.coarse import with_coarse_topics
from training.evaluation.point_in_time import PointInTime
from training.evaluation.popularity import SlidingCounts
from training.evaluation.ranking import Ranking
from training.evaluation.scorers import LearnerScorer, Scorer, SteeredScorer
from training.examples import Examples, Logged, build_examples
from training.learner import Learner
from training.methods import CONDITIONAL, DEFAULT, METHODS, UNCONDITIONAL

WIDTHS = ("fine", "coarse")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Schedule:
    """What the prequential protocol evaluates, and when.

    Attributes:
        warmup_until_ms, until_ms: Queries are the engagements in between.
        refresh_ms: Time between refreshes of the parameters; None never refreshes after the warm-up.
        max_queries: Queries are sampled evenly down to this number.
        coarse_topics: Number of coarse topics that items carry besides their own; 0 for none.
        behind_ms: How far counts lag behind each query, of every row; only without refreshes.
        methods: Names of `METHODS`.
        strengths: More rows, in which the conditional method's conditions weigh that many times as much.
    """

    warmup_until_ms: int
    until_ms: int
    refresh_ms: int | None
    max_queries: int
    coarse_topics: int = 0
    behind_ms: int = 0
    methods: Sequence[str] = DEFAULT
    strengths: Sequence[float] = ()
    seed: int = 0


def evaluate_prequential(
    engagements: EngagementTable, items: list[Item], schedule: Schedule, settings: LearningSettings, progress: Progress
) -> dict[str, Ranking]:
    """Return the ranking of every method over the same queries, by width of topic: `fine` and perhaps `coarse`."""
    corpus = Corpus()
    if schedule.coarse_topics:
        items = with_coarse_topics(items, engagements, schedule.warmup_until_ms, schedule.coarse_topics, schedule.seed)
    for item in items:
        corpus.put(item)
    log = _examples(engagements, corpus, schedule.until_ms, progress)
    learners = learners_of(schedule.methods, corpus, settings)
    random = np.random.default_rng(schedule.seed)
    warm = int(np.searchsorted(log.times_ms, schedule.warmup_until_ms))
    learn(learners, corpus, log[:warm], random, lambda done: progress("warm-up", done, warm))

    queries = _queries(log, warm, schedule, corpus, np.random.default_rng(schedule.seed))
    widths = WIDTHS[: 2 if schedule.coarse_topics else 1]
    rankings = {width: Ranking(corpus, settings.live_for_ms, overfetch=(UNCONDITIONAL,)) for width in widths}
    counts = {width: SlidingCounts(log.items, log.times_ms, len(corpus) + 1) for width in widths}
    scorers: dict[str, Scorer] = {name: LearnerScorer(learner) for name, learner in learners.items()}
    for strength in schedule.strengths:
        scorers[f"{CONDITIONAL}*{strength:g}"] = SteeredScorer(learners[CONDITIONAL], strength)
    step_ms = schedule.refresh_ms or schedule.until_ms - schedule.warmup_until_ms
    for begin_ms in range(schedule.warmup_until_ms, schedule.until_ms, step_ms):
        span = np.searchsorted(log.times_ms, (begin_ms, min(begin_ms + step_ms, schedule.until_ms)))
        first, last = int(span[0]), int(span[1])
        rows = queries[(queries >= first) & (queries < last)]
        now = corpus.activity()
        asked = log[rows]
        for column, width in enumerate(widths):
            conditions = corpus.item_topics[asked.items, column]
            before = PointInTime(corpus, log, counts[width], rows, first, schedule.behind_ms)
            rankings[width].rank(scorers, asked, conditions, asked.histories, before)
            corpus.restore(now)
        if schedule.refresh_ms:
            learn(learners, corpus, log[first:last], random)
        progress("evaluation", last - warm, len(log) - warm)
    return rankings


def learners_of(methods: Sequence[str], corpus: Corpus, settings: LearningSettings) -> dict[str, Learner]:
    """Return a learner of each method.

    Raises:
        UsageError: there is no such method.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise UsageError(f"no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return {name: Learner(corpus, replace(settings, **METHODS[name])) for name in methods}


def learn(
    learners: Mapping[str, Learner],
    corpus: Corpus,
    examples: Examples,
    random: np.random.Generator,
    progress: Callable[[int], None] = lambda done: None,
    counted: bool = False,
) -> None:
    """Train every learner; those that sample alike see the same batches. `counted`: see `prepare`."""
    alike: dict[LearningSettings, list[Learner]] = {}
    for learner in learners.values():
        alike.setdefault(learner.settings.of_batches(), []).append(learner)
    before = corpus.activity() if len(alike) > 1 else None
    for group, (settings, members) in enumerate(alike.items()):
        if group and before is not None:
            corpus.restore(before)
        done = 0
        for batch in prepare(corpus, examples, settings, random, counted):
            for learner in members:
                learner.step(batch)
            done += len(batch.examples)
            progress((len(examples) * group + done) // len(alike))


def _examples(engagements: EngagementTable, corpus: Corpus, until_ms: int, progress: Progress) -> Examples:
    total = int(np.searchsorted(engagements.occurred_ms, until_ms))

    def logged() -> Iterator[Logged]:
        for offset, engagement in enumerate(engagements.events(until_ms=until_ms)):
            if offset % 10_000 == 0:
                progress("folding", offset, total)
            yield Logged(engagement, 0, offset)

    return build_examples(Users(), corpus, logged())


def _queries(
    log: Examples, warm: int, schedule: Schedule, corpus: Corpus, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return rows of the log to rank: no repeats, only items with a topic, sampled evenly.

    Nor engagements that make an item known: no other candidate is as new as the answer then. Nor those for which the
    warm-up counted what should not be known yet.
    """
    items = log.items[warm:]
    known = log.times_ms[warm:] > corpus.published_ms[items]
    known &= log.times_ms[warm:] >= schedule.warmup_until_ms + schedule.behind_ms
    rows = np.flatnonzero(known & ~log.repeats[warm:] & (corpus.item_topics[items, 0] > 0)) + warm
    if len(rows) > schedule.max_queries:
        rows = np.sort(random.choice(rows, schedule.max_queries, replace=False))
    return rows

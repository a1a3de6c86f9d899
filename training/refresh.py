"""A refresh, top to bottom: read, rank, learn, export, publish, build, verify, promote."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headwater.bundle import Bundle, remove_bundle
from headwater.covisit_features import RETENTION_MS
from headwater.errors import BundleError, HeadwaterError, UsageError
from headwater.events import now_ms
from headwater.generations import Alias
from headwater.names import ENGAGEMENTS
from headwater.rotation import Rotation
from headwater.settings import Settings
from headwater.users import Users
from training.batches import LearningSettings, prepare
from training.checkpoint import read_checkpoint, write_checkpoint
from training.corpus import Corpus
from training.evaluation.ranking import Ranking
from training.evaluation.scorers import BundleScorer, LearnerScorer, Scorer
from training.examples import Examples, build_examples
from training.export import GOLDEN_ROWS, export_bundle
from training.gate import CANDIDATE, LIVE, decide, rank_newest
from training.learner import Learner
from training.log import LogReader
from training.recent import Recent

SLICE_SHARE = 0.1
"""Newest share of the examples that is ranked before it is learned from."""
MIN_SLICE = 500
MAX_SLICE = 2_000
PAUSED = "an operator rolled back: `headwater index promote VERSION` lets the trainer promote again"
REPORTED = ("mrr", "recall@1", "recall@10", "topic_match@50")

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]


@dataclass
class Trainer:
    """Keeps the trainer's state between refreshes; all of it can be restored from a checkpoint.

    Attributes:
        settings: The installation.
        learning: How the model is trained.
        progress: Called with (stage, done, total).
    """

    settings: Settings
    learning: LearningSettings
    progress: Progress = lambda stage, done, total: None

    def __post_init__(self) -> None:
        self.directory = self.settings.state_dir / "training"
        self.rotation = Rotation(self.settings)
        self._return_to_checkpoint()

    def _start_from_scratch(self) -> None:
        self.learner: Learner | None = None
        self.users = Users()
        self.corpus = Corpus()
        self.recent = Recent()
        self.reader = LogReader(self.settings)

    def _return_to_checkpoint(self) -> None:
        self._start_from_scratch()
        restored = read_checkpoint(self.directory / "checkpoints", self.learning)
        if restored is not None:
            self.learner, self.users, self.reader.offsets = restored
            self.corpus = self.learner.corpus

    def refresh(self, promote: bool = True) -> dict[str, Any] | None:
        """Bring the model up to the end of the log; return the run record, None where nothing is new.

        After an error the state is that of the last checkpoint, so that the next refresh reads the same log again; where the
        bundle was published and only its rotation failed, that is the state with what it learned.

        Raises:
            UsageError: there is nothing to train on yet.
            HeadwaterError: a service is unavailable, a disk is full, or the new generation does not verify; the live one stays.
        """
        try:
            return self._refresh(promote)
        except Exception:
            self._return_to_checkpoint()
            raise

    def _refresh(self, promote: bool) -> dict[str, Any] | None:
        started = time.monotonic()
        # 1. Read the log since the last refresh. Of a long one learn all but the newest part as it is read.
        examples, count = self._read_and_learn()
        if examples is None:
            if self.learner is None:
                raise UsageError("the log holds no engagement with a known item yet; stream some in first")
            return None
        learner = self._fitted_learner()
        seconds = {"read": time.monotonic() - started}
        # 2. Learn from all but the newest slice. 3. Rank that slice with the live bundle and the new towers.
        older, newest = _split(examples)
        self._learn(learner, older)
        seconds["train"] = time.monotonic() - started
        ranking = self._rank(learner, newest)
        seconds["rank"] = time.monotonic() - started
        # 4. Learn from the newest slice too. 5. Export and publish, durable at once or not at all.
        self._learn(learner, newest)
        newest_ms = int(examples.times_ms[-1])
        metrics = _metrics(ranking)
        version = self._publish(learner, newest_ms, metrics)
        seconds["export"] = time.monotonic() - started
        # 6. Forget the users that the feature store forgets, and make room.
        # 7. Only now store the offsets: a crash before this reads the same log again into the old state.
        self._forget_users(newest_ms)
        self._prune_unbuilt(version)
        write_checkpoint(self.directory / "checkpoints", version, learner, self.users, self.reader.offsets)
        # 8. Rotate the index, if the gate lets the bundle through.
        decision = decide(ranking)
        alias = self.rotation.generations.alias()
        reasons = decision.reasons + ([PAUSED] if promote and alias.promotions_paused else [])
        promoted = promote and decision.promote and not alias.promotions_paused
        if promoted:
            self._rotate(version, alias)
        seconds["total"] = time.monotonic() - started
        outcome = {"version": version, "promoted": promoted, "reasons": reasons, "examples": count}
        record = outcome | self._record(metrics, seconds)
        self._save(record)
        return record

    def _read_and_learn(self) -> tuple[Examples | None, int]:
        """Return the newest part of the log, not learned yet (None where nothing is new), and how many examples were read."""
        examples, count = None, 0
        for part in filter(len, self._read()):
            if examples is not None:
                self._learn(self._fitted_learner(), examples)
            examples, count = part, count + len(part)
            self.recent.add(part)
        return examples, count

    def _publish(self, learner: Learner, newest_ms: int, metrics: dict[str, float]) -> str:
        """Export and publish a bundle; return its version."""
        states = [self.users.record(user_id).state for user_id in list(self.users.rows)[-GOLDEN_ROWS:]]
        path = export_bundle(learner, self.settings.model_dir, states, newest_ms, self.reader.offsets, metrics)
        return path.name

    def _record(self, metrics: dict[str, float], seconds: dict[str, float]) -> dict[str, Any]:
        """Return the part of the run record that describes the state after the refresh."""
        return {
            "items": len(self.corpus),
            "users": len(self.users),
            "skipped": dict(self.reader.skipped),
            "metrics": metrics,
            "offsets": self.reader.offsets[ENGAGEMENTS],
            "learning": asdict(self.learning),
            "seconds": {stage: round(until, 2) for stage, until in seconds.items()},
        }

    def _read(self) -> Iterator[Examples]:
        """Yield the log since the last refresh in parts, folded into examples with the stream's own code."""
        if not self.reader.fits():
            log.warning(
                "the log ends before the offsets already trained on, so it was recreated; training restarts from scratch"
            )
            self._start_from_scratch()
        self.reader.skipped.clear()
        ends = self.reader.unread_until()
        self.reader.read_items(self.corpus)  # after the ends: so all items that the stream knew are known here
        self._forget_items()
        for part in self.reader.read_parts(ends):
            yield build_examples(self.users, self.corpus, part).in_time()

    def _fitted_learner(self) -> Learner:
        if self.learner is None:
            self.learner = Learner(self.corpus, self.learning)
        self.learner.fit_vocabulary()
        return self.learner

    def _learn(self, learner: Learner, examples: Examples) -> None:
        random = np.random.default_rng((self.learning.seed, int(self.corpus.totals.sum()), len(examples)))
        done = 0
        for batch in prepare(self.corpus, examples, self.learning, random):
            learner.step(batch)
            done += len(batch.examples)
            self.progress("training", done, len(examples))

    def _rank(self, learner: Learner, newest: Examples) -> Ranking:
        scorers: dict[str, Scorer] = {CANDIDATE: LearnerScorer(learner)}
        live = self._live_bundle()
        if live is not None:
            scorers[LIVE] = BundleScorer(live, self.corpus)
        return rank_newest(scorers, self.corpus, newest, self.recent, self.learning.live_for_ms, self.learning.seed)

    def _live_bundle(self) -> Bundle | None:
        try:
            version = self.rotation.live()
            return Bundle.load(self.settings.model_dir / version) if version else None
        except BundleError as error:
            log.error("cannot compare with the live bundle: %s", error)
            return None

    def _forget_items(self) -> None:
        """Drop the items that the catalogue and the feature store forget; once they are the larger half, renumber the rest."""
        corpus, ttl_ms = self.corpus, self.settings.item_ttl_s * 1000
        newest_ms = int(corpus.engaged_ms.max())
        corpus.forget(now_ms() - ttl_ms)
        corpus.forget_activity(newest_ms - ttl_ms)
        corpus.covisits.forget(newest_ms - RETENTION_MS)
        since_ms = newest_ms - max(ttl_ms, RETENTION_MS)
        numbers = corpus.needed(since_ms)
        if 2 * len(numbers) > len(corpus):
            return
        log.info("of %d items %d are still needed", len(corpus), len(numbers))
        self.corpus = corpus.of(numbers, since_ms)
        fresh = np.zeros(len(corpus) + 1, dtype=np.int64)
        fresh[numbers] = np.arange(1, len(numbers) + 1)
        self.recent.items = fresh[self.recent.items]
        if self.learner is not None:
            self.learner.renumber(self.corpus, numbers)

    def _forget_users(self, newest_ms: int) -> None:
        since_ms = newest_ms - self.settings.user_ttl_s * 1000
        kept = [
            user_id
            for user_id, newest in zip(self.users.rows, self.users.newest_ms(), strict=True)
            if newest >= since_ms
        ]
        if len(kept) < len(self.users):
            self.users = self.users.kept(kept)

    def _prune_unbuilt(self, published: str) -> None:
        """Delete old bundles without a generation; those with one go when a newer one is promoted."""
        old = self.rotation.prunable()
        kept = {published, *(generation.version for generation in self.rotation.generations.all())}
        for version in old:
            if version not in kept:
                remove_bundle(self.settings.model_dir, version)

    def _rotate(self, version: str, alias: Alias) -> None:
        try:
            self.rotation.build(version, lambda done, total: self.progress("building", done, total))
            self.rotation.promote(version, alias)
        except HeadwaterError:
            log.error(
                "%s is published, not live: `headwater index build` and `promote` it, or wait for the next", version
            )
            raise
        finally:  # generations never promoted would pile up in every server
            self._prune()

    def _prune(self) -> None:
        try:
            self.rotation.prune()
        except HeadwaterError as error:
            log.warning("old generations are not pruned: %s", error)

    def _save(self, record: dict[str, Any]) -> None:
        runs = self.directory / "runs"
        try:
            runs.mkdir(parents=True, exist_ok=True)
            (runs / f"{record['version']}.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
        except OSError as error:
            raise HeadwaterError(f"the run record cannot be written: {error}") from error


def _split(examples: Examples) -> tuple[Examples, Examples]:
    """Return all but the newest slice, and the slice: small refreshes give up to half, so that the gate can judge."""
    newest = max(1, round(SLICE_SHARE * len(examples)), min(len(examples) // 2, MIN_SLICE))
    first = len(examples) - min(newest, MAX_SLICE)
    return examples[:first], examples[first:]


def _metrics(ranking: Ranking) -> dict[str, float]:
    """Return the main figures of every row, `row/figure`."""
    figures = {name: row.figures() for name, row in ranking.rows.items()}
    return {f"{name}/{figure}": round(row[figure], 5) for name, row in figures.items() for figure in REPORTED}

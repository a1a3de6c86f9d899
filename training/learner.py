"""One model and its optimisers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from headwater.covisit_features import COVISITS
from headwater.features import STREAMING, Features
from headwater.sparse_rows import entries_of
from training.batches import LearningSettings, PreparedBatch
from training.corpus import Corpus
from training.dynamic_scores import add_dynamic_scores
from training.id_table import IdTable, id_table
from training.losses import cross_entropy, reward_loss
from training.ranker import FAR, RANKED, Ranker, Shortlist
from training.towers import Towers, TowerSizes, looked_up, static_scores

Ints = npt.NDArray[np.int64]
LISTS = 256
"""Examples per step that the second stage learns from."""


def use_half_of_the_cores() -> None:
    """Have torch use half of the cores, unless `OMP_NUM_THREADS` says how many.

    Its threads spin while they wait for each other, so where anything else needs the cores, all of them take several times as
    long as half.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormals to zero: most of a softmax gradient is denormal, and some CPUs are slow at it."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Learner:
    """Trains towers on examples; vocabulary rows are the corpus' numbers.

    Args:
        corpus: Items and their activity.
    """

    def __init__(self, corpus: Corpus, settings: LearningSettings) -> None:
        self.corpus = corpus
        self.settings = settings
        self.ids = self._id_table(corpus)
        torch.manual_seed(settings.seed)
        self.towers = Towers(self._sizes())
        self.ranker = Ranker(self.towers.sizes) if settings.second_stage else None
        sizes = self.towers.sizes
        widths = settings.dimension, STREAMING, COVISITS, (sizes.personas - 1) * sizes.own
        shares = 1.0, float(settings.streaming), float(settings.covisits), 1.0
        self._used = torch.repeat_interleave(torch.tensor(shares), torch.tensor(widths))
        self._make_optimisers()

    def _sizes(self) -> TowerSizes:
        topics = max(64, 1 << (len(self.corpus.topics)).bit_length())
        settings = self.settings
        return TowerSizes(
            topics,
            self.ids.size,
            settings.dimension,
            personas=settings.personas,
            fusion=settings.fusion,
            several_rows=self.ids.several,
        )

    def _make_optimisers(self) -> None:
        """Make one for the id embeddings, whose gradients are sparse unless an item has several, and one for all else."""
        sparse = [self.towers.user.history.weight, self.towers.item.own.weight]
        ids = {id(weight) for weight in sparse}
        dense = [weight for weight in self.towers.parameters() if id(weight) not in ids]
        dense += self.ranker.parameters() if self.ranker else []
        self.dense = torch.optim.Adam(dense, lr=self.settings.learning_rate, fused=True)
        of_ids = torch.optim.Adam if self.ids.several else torch.optim.SparseAdam
        self.sparse = of_ids(sparse, lr=self.settings.id_learning_rate)

    def fit_vocabulary(self) -> None:
        """Grow the tables when the corpus outgrew them; the weights stay, the optimisers start again."""
        sizes = self._sizes()
        if sizes.items > self.towers.sizes.items or sizes.topics > self.towers.sizes.topics:
            rows = torch.arange(self.towers.sizes.items + 1)
            self._resize(sizes, rows, rows)

    def _resize(self, sizes: TowerSizes, former: Tensor, rows: Tensor) -> None:
        """See `Towers.resized`; chance does not depend on what this process did before."""
        torch.manual_seed((self.settings.seed + sizes.items + sizes.topics) % 2**63)
        self.towers = self.towers.resized(sizes, former, rows)
        self._make_optimisers()

    def renumber(self, corpus: Corpus, numbers: Ints) -> None:
        """Continue with a corpus in which the items of these numbers (N,) are 1 to N; the optimisers start again."""
        former, fresh = self.ids.rows(numbers), np.arange(1, len(numbers) + 1)
        self.corpus, self.ids = corpus, self._id_table(corpus)
        learned = former.reshape(len(numbers), -1).any(axis=1)
        self.ids.admit(fresh[learned], int(corpus.engaged_ms.max()))
        rows = self.ids.rows(fresh)
        both = (former > 0) & (rows > 0)
        self._resize(self._sizes(), *map(torch.from_numpy, (former[both], rows[both])))

    def _id_table(self, corpus: Corpus) -> IdTable:
        return id_table(corpus, self.settings.ids, self.settings.id_rows, self.settings.min_engagements)

    def _person_inputs(self, features: Features) -> tuple[Tensor, ...]:
        """Return the user tower's inputs but the condition as tensors."""
        rest = [torch.from_numpy(features[name]) for name in ("topic_ids", "topic_weights", "context")]
        return *self._past_inputs(features), *rest

    def _past_inputs(self, features: Features) -> tuple[Tensor, Tensor]:
        rows = self.ids.rows(features["history_items"].astype(np.int64))
        return torch.from_numpy(rows), torch.from_numpy(features["history_ages"])

    def item_inputs(self, items: Ints) -> tuple[Tensor, Tensor]:
        """Return the item tower's inputs as tensors."""
        return torch.from_numpy(self.ids.rows(items)), torch.from_numpy(self.corpus.item_topics[items])

    @flushed_denormals()
    def step(self, batch: PreparedBatch) -> float:
        """Learn from one batch; return its loss."""
        sampled = batch.sampled
        self._forget(self.ids.admit(sampled.items, int(batch.examples.times_ms[-1])))
        user = self._embed_users(batch.examples.features, batch.rows, batch.conditions)  # (R, D + S + V)
        item = self.towers.item(*self.item_inputs(sampled.items))  # (C, D)
        logits = self._scores(user, item, batch)  # (R, C)
        with torch.no_grad():  # neither depends on the towers
            logits -= torch.from_numpy(sampled.log_q)
            logits[batch.seen] = FAR
        positives = torch.from_numpy(sampled.positives[batch.rows])
        loss = cross_entropy(logits, positives)
        if self.settings.reward:
            loss = loss + self.settings.reward * reward_loss(logits, positives)
        if self.settings.auxiliary:
            loss = loss + self.settings.auxiliary * self._auxiliary_loss(user, torch.from_numpy(batch.conditions))
        if self.ranker:
            loss = loss + self._ranker_loss(self.ranker, user.detach(), item.detach(), logits.detach(), batch)
        self.dense.zero_grad()
        self.sparse.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.dense.step()
        self.sparse.step()
        return float(loss.detach())

    def _embed_users(self, features: Features, rows: Ints, conditions: Ints) -> Tensor:
        """Return a user embedding per row, given the user of each, one of B, and its condition."""
        tower, chosen = self.towers.user, torch.from_numpy(rows)
        person, tastes = (each.index_select(0, chosen) for each in tower.people(*self._person_inputs(features)))
        return tower.asked(person, tastes, torch.from_numpy(conditions)) * self._used

    def _auxiliary_loss(self, user: Tensor, conditions: Tensor) -> Tensor:
        """Return the loss of predicting the condition from the taste half (R, D / 2)."""
        asked = conditions > 0
        taste = user[asked, self.towers.sizes.topical : self.settings.dimension]
        return functional.cross_entropy(taste @ self.towers.item.taste.weight.T, conditions[asked])

    def _ranker_loss(self, ranker: Ranker, user: Tensor, item: Tensor, logits: Tensor, batch: PreparedBatch) -> Tensor:
        """Return the loss over the best sampled items of the condition, of `LISTS` examples."""
        asked = np.flatnonzero(batch.conditions)
        if not len(asked):
            return logits.new_zeros(())
        rows = asked[np.linspace(0, len(asked) - 1, min(LISTS, len(asked))).astype(np.int64)]
        sampled, steered = batch.sampled, self.towers.sizes.steered
        log_q = torch.from_numpy(sampled.log_q)
        topics = self.corpus.item_topics[sampled.items]  # (C, T)
        off_topic = (topics != batch.conditions[rows, None, None]).all(2)  # (r, C)
        examples = batch.rows[rows]
        features = batch.examples[examples].features
        with torch.no_grad():
            own = self._embed_users(features, np.arange(len(rows)), np.zeros_like(rows))  # as inside an exact filter
        found = logits[rows] + log_q + (own - user[rows])[:, :steered] @ item[:, :steered].T
        found = found.masked_fill(torch.from_numpy(off_topic), FAR)
        listed = torch.topk(found, min(RANKED, len(item))).indices  # (r, N), positions in `sampled.items`
        is_positive = listed == torch.from_numpy(sampled.positives[examples, None])
        dynamic = batch.dynamic
        slices = np.repeat(np.arange(len(dynamic.slices)), dynamic.slices)[rows]
        streaming = torch.from_numpy(np.stack(dynamic.streaming))[slices[:, None], listed]
        owners, entries = entries_of(dynamic.covisits.owners, examples)
        covisits = torch.zeros((*found.shape, COVISITS))
        covisits[owners, dynamic.covisits.items[entries]] = torch.from_numpy(dynamic.covisits.values[entries])
        shortlist = Shortlist(
            own,
            *self._history(features),
            item[listed],
            streaming,
            covisits[torch.arange(len(rows))[:, None], listed],
            found.gather(1, listed),
        )
        again = ranker(*shortlist) - log_q[listed]
        listed_rows = is_positive.any(1)
        loss = functional.cross_entropy(again, is_positive.int().argmax(1), reduction="none")
        return (loss * listed_rows).sum() / listed_rows.sum().clamp(min=1)

    @torch.no_grad()
    def _history(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, H, D / 2) of past items and their ages."""
        rows, ages = self._past_inputs(features)
        return looked_up(self.towers.user.history, rows, 2), ages

    @torch.no_grad()
    def rank_again(
        self,
        features: Features,
        user: npt.NDArray[np.float32],
        items: npt.NDArray[np.float32],
        streaming: npt.NDArray[np.float32],
        covisits: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Return the second stage's scores (N,) of one user's items, see `Shortlist`; the method must have one."""
        assert self.ranker is not None
        rest = [torch.from_numpy(each[None]) for each in (items, streaming, covisits, scores)]
        ranked = self.ranker(torch.from_numpy(user[None]), *self._history(features), *rest)
        again: npt.NDArray[np.float32] = ranked[0].numpy()
        return again

    def _scores(self, user: Tensor, item: Tensor, batch: PreparedBatch) -> Tensor:
        begin = self.settings.dimension
        scores = static_scores(user, item, self.towers.sizes)  # (R, C)
        return add_dynamic_scores(scores, user[:, begin : begin + STREAMING + COVISITS], batch.dynamic, batch.rows)

    @torch.no_grad()
    def _forget(self, rows: Ints) -> None:
        if not len(rows):
            return
        for weight in (self.towers.user.history.weight, self.towers.item.own.weight):
            weight[rows] = 0.0
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in self.sparse.state[weight]:
                    self.sparse.state[weight][moment][rows] = 0.0

    def state(self) -> dict[str, Any]:
        """Return weights, optimiser states and table sizes."""
        return {
            "sizes": self.towers.sizes.as_dict(),
            "towers": self.towers.state_dict(),
            "dense": self.dense.state_dict(),
            "sparse": self.sparse.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Become what `state` returned, of a learner with the same settings."""
        self.towers = Towers(TowerSizes(**state["sizes"]))
        self.towers.load_state_dict(state["towers"])
        self._make_optimisers()
        self.dense.load_state_dict(state["dense"])
        self.sparse.load_state_dict(state["sparse"])

    @torch.no_grad()
    def embed_users(self, features: Features, conditions: Ints) -> npt.NDArray[np.float32]:
        """Return user embeddings (B, D + STREAMING + COVISITS)."""
        rows = np.arange(len(conditions))
        with self.towers.for_serving():
            embeddings: npt.NDArray[np.float32] = self._embed_users(features, rows, conditions).numpy()
        return embeddings

    @torch.no_grad()
    def static_scores(self, user: npt.NDArray[np.float32], items: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the static part of one user's scores (N,) with item embeddings (N, D)."""
        scores = static_scores(torch.from_numpy(user[None]), torch.from_numpy(items), self.towers.sizes)
        static: npt.NDArray[np.float32] = scores[0].numpy()
        return static

    @torch.no_grad()
    def embed_items(self, items: Ints) -> npt.NDArray[np.float32]:
        """Return static item embeddings (N, D)."""
        embeddings: npt.NDArray[np.float32] = self.towers.item(*self.item_inputs(items)).numpy()
        return embeddings

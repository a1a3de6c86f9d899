"""One model and its optimisers."""

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
from training.id_table import IdTable, id_table
from training.ranker import FAR, RANKED, Ranker, Shortlist
from training.streaming_scores import add_streamed
from training.towers import Towers, TowerSizes, looked_up, static_scores

Ints = npt.NDArray[np.int64]
REWARDED = 10
DRAWS = 4
LISTS = 256


class _CrossEntropy(torch.autograd.Function):
    """Keeps the shares, of which the gradient is made in place: logits are large, and each pass over them takes its time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positives: Tensor) -> Tensor:
        shares = torch.softmax(logits, dim=1)
        rows = torch.arange(len(logits))
        losses = -shares[rows, positives].clamp(min=torch.finfo(shares.dtype).tiny).log()
        shares[rows, positives] -= 1.0
        ctx.gradient = shares
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.mul_(gradient / len(ctx.gradient)), None


def cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    """Return the mean loss of logits (R, C) whose right answers are at `positives` (R,); its gradient can be taken once."""
    loss: Tensor = _CrossEntropy.apply(logits, positives)
    return loss


def reward_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Return a loss whose gradient raises the expected NDCG@10 of rankings drawn from the scores (REINFORCE).

    Args:
        logits: (R, C), of which a ranking is drawn without replacement (Plackett-Luce).
        positives: (R,) places of the items that are rewarded.
    """
    rewards, chances, length = [], [], min(REWARDED, logits.shape[1])
    total = torch.logsumexp(logits, dim=1, keepdim=True)
    for _ in range(DRAWS):
        noise = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-9, 1.0 - 1e-7)))
        drawn = torch.topk(logits.detach() + noise, length, dim=1).indices  # (R, length)
        shares = torch.exp(logits.gather(1, drawn) - total)
        left = (1.0 - shares.cumsum(1) + shares).clamp(min=1e-6)
        chances.append((shares.clamp(min=1e-9).log() - left.log()).sum(1))
        hit = drawn == positives[:, None]
        rewards.append((hit / torch.log2(torch.arange(length) + 2.0)).sum(1))
    advantages = torch.stack(rewards) - torch.stack(rewards).mean(0)
    return -(advantages * torch.stack(chances)).sum(0).mean()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take what is next to nothing as nothing: most of a softmax' gradient is, and some processors are slow at it."""
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
        """Grow the tables when the corpus outgrew them; the weights stay, the optimisers start anew."""
        sizes = self._sizes()
        if sizes.items > self.towers.sizes.items or sizes.topics > self.towers.sizes.topics:
            rows = torch.arange(self.towers.sizes.items + 1)
            self.towers = self.towers.resized(sizes, rows, rows)
            self._make_optimisers()

    def renumber(self, corpus: Corpus, numbers: Ints) -> None:
        """Go on with a corpus in which the items that had these numbers (N,) are 1 to N; the optimisers start anew."""
        former, fresh = self.ids.rows(numbers), np.arange(1, len(numbers) + 1)
        self.corpus, self.ids = corpus, self._id_table(corpus)
        learned = former.reshape(len(numbers), -1).any(axis=1)
        self.ids.admit(fresh[learned], int(corpus.engaged_ms.max()))
        rows = self.ids.rows(fresh)
        both = (former > 0) & (rows > 0)
        self.towers = self.towers.resized(self._sizes(), *map(torch.from_numpy, (former[both], rows[both])))
        self._make_optimisers()

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
        candidates = batch.candidates
        self._forget(self.ids.admit(candidates.items, int(batch.examples.times_ms[-1])))
        user = self._embed_users(batch.examples.features, batch.rows, batch.conditions)  # (R, D + S + V)
        item = self.towers.item(*self.item_inputs(candidates.items))  # (C, D)
        logits = self._scores(user, item, batch)  # (R, C)
        with torch.no_grad():  # what is added does not depend on the towers, and what is far has no share
            logits -= torch.from_numpy(candidates.log_q)
            logits[batch.seen] = FAR
        positives = torch.from_numpy(candidates.positives[batch.rows])
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
        """Return a user embedding for each row, which says whose of B users' it is, and its condition."""
        tower, chosen = self.towers.user, torch.from_numpy(rows)
        person, tastes = (each.index_select(0, chosen) for each in tower.people(*self._person_inputs(features)))
        return tower.asked(person, tastes, torch.from_numpy(conditions)) * self._used

    def _auxiliary_loss(self, user: Tensor, conditions: Tensor) -> Tensor:
        """Return how badly the taste half (R, D / 2) tells which topic was asked for."""
        asked = conditions > 0
        taste = user[asked, self.towers.sizes.topical : self.settings.dimension]
        return functional.cross_entropy(taste @ self.towers.item.taste.weight.T, conditions[asked])

    def _ranker_loss(self, ranker: Ranker, user: Tensor, item: Tensor, logits: Tensor, batch: PreparedBatch) -> Tensor:
        """Return the loss over the best candidates of the topic asked for, of `LISTS` examples."""
        asked = np.flatnonzero(batch.conditions)
        if not len(asked):
            return logits.new_zeros(())
        rows = asked[np.linspace(0, len(asked) - 1, min(LISTS, len(asked))).astype(np.int64)]
        candidates, steered = batch.candidates, self.towers.sizes.steered
        log_q = torch.from_numpy(candidates.log_q)
        topics = self.corpus.item_topics[candidates.items]  # (C, T)
        off_topic = (topics != batch.conditions[rows, None, None]).all(2)  # (r, C)
        examples = batch.rows[rows]
        features = batch.examples[examples].features
        with torch.no_grad():
            own = self._embed_users(features, np.arange(len(rows)), np.zeros_like(rows))  # as inside an exact filter
        found = logits[rows] + log_q + (own - user[rows])[:, :steered] @ item[:, :steered].T
        found = found.masked_fill(torch.from_numpy(off_topic), FAR)
        places = torch.topk(found, min(RANKED, len(item))).indices  # (r, N)
        is_positive = places == torch.from_numpy(candidates.positives[examples, None])
        streamed = batch.streamed
        slices = np.repeat(np.arange(len(streamed.slices)), streamed.slices)[rows]
        streaming = torch.from_numpy(np.stack(streamed.streaming))[slices[:, None], places]
        owners, entries = entries_of(streamed.covisits.owners, examples)
        covisits = torch.zeros((*found.shape, COVISITS))
        covisits[owners, streamed.covisits.items[entries]] = torch.from_numpy(streamed.covisits.values[entries])
        listed = Shortlist(
            own,
            *self._history(features),
            item[places],
            streaming,
            covisits[torch.arange(len(rows))[:, None], places],
            found.gather(1, places),
        )
        again = ranker(*listed) - log_q[places]
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
        return add_streamed(scores, user[:, begin : begin + STREAMING + COVISITS], batch.streamed, batch.rows)

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

"""One model and its optimisers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from headwater.covisit_features import COVISITS
from headwater.features import STREAMING, Features
from training.batches import LearningSettings, PreparedBatch
from training.corpus import Corpus
from training.towers import Towers, TowerSizes

Ints = npt.NDArray[np.int64]
NEVER = -1e9


class Learner:
    """Trains towers on examples; vocabulary rows are the corpus' numbers.

    Args:
        corpus: Items and their activity.
    """

    def __init__(self, corpus: Corpus, settings: LearningSettings) -> None:
        self.corpus = corpus
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.towers = Towers(self._sizes())
        used = (settings.dimension, 1.0), (STREAMING, float(settings.streaming)), (COVISITS, float(settings.covisits))
        self._used = torch.cat([torch.full((width,), share) for width, share in used])
        self._make_optimisers()

    def _sizes(self) -> TowerSizes:
        capacity = len(self.corpus.alive) - 1
        topics = max(64, 1 << (len(self.corpus.topics)).bit_length())
        return TowerSizes(topics, capacity, 0, self.settings.dimension, fusion=self.settings.fusion)

    def _make_optimisers(self) -> None:
        sparse = [self.towers.user.history.weight, self.towers.item.own.weight]
        ids = {id(weight) for weight in sparse}
        dense = [weight for weight in self.towers.parameters() if id(weight) not in ids]
        self.dense = torch.optim.Adam(dense, lr=self.settings.learning_rate)
        self.sparse = torch.optim.SparseAdam(sparse, lr=self.settings.id_learning_rate)

    def fit_vocabulary(self) -> None:
        """Grow the tables when the corpus outgrew them; the weights stay, the optimisers start anew."""
        sizes = self._sizes()
        if sizes.items > self.towers.sizes.items or sizes.topics > self.towers.sizes.topics:
            self.towers = self.towers.grown(sizes)
            self._make_optimisers()

    def gated(self, items: Ints) -> Ints:
        """Return item numbers, 0 for those with too few engagements for an embedding of their own."""
        enough = self.corpus.totals[items] >= self.settings.min_engagements
        return np.where(enough, items, 0)

    def user_inputs(self, features: Features, conditions: Ints) -> tuple[Tensor, ...]:
        """Return the user tower's inputs as tensors."""
        gated = self.gated(features["history_items"].astype(np.int64))
        return (
            torch.from_numpy(gated),
            torch.from_numpy(features["history_ages"]),
            torch.from_numpy(features["topic_ids"]),
            torch.from_numpy(features["topic_weights"]),
            torch.from_numpy(conditions),
            torch.from_numpy(features["context"]),
        )

    def item_inputs(self, items: Ints) -> tuple[Tensor, Tensor, Tensor]:
        """Return the item tower's inputs as tensors."""
        numeric = torch.zeros(len(items), self.towers.sizes.numeric)
        return torch.from_numpy(self.gated(items)), torch.from_numpy(self.corpus.item_topics[items]), numeric

    def step(self, batch: PreparedBatch) -> float:
        """Learn from one batch; return its loss."""
        candidates = batch.candidates
        user = self._embed_users(batch.examples.features, batch.conditions)  # (R, D + S + V)
        item = self.towers.item(*self.item_inputs(candidates.items))  # (C, D)
        logits = self._scores(user, item, batch) - torch.from_numpy(candidates.log_q)  # (R, C)
        logits[batch.seen] = NEVER
        positives = torch.from_numpy(candidates.positives)
        loss = functional.cross_entropy(logits, positives)
        if self.settings.auxiliary:
            loss = loss + self.settings.auxiliary * self._auxiliary_loss(user, torch.from_numpy(batch.conditions))
        self.dense.zero_grad()
        self.sparse.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.dense.step()
        self.sparse.step()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _embed_users(self, features: Features, conditions: Ints) -> Tensor:
        embeddings: Tensor = self.towers.user(*self.user_inputs(features, conditions)) * self._used
        return embeddings

    def _auxiliary_loss(self, user: Tensor, conditions: Tensor) -> Tensor:
        """Return how badly the taste half (R, D / 2) tells which topic was asked for."""
        asked = conditions > 0
        taste = user[asked, self.towers.sizes.topical : self.settings.dimension]
        return functional.cross_entropy(taste @ self.towers.item.taste.weight.T, conditions[asked])

    def _scores(self, user: Tensor, item: Tensor, batch: PreparedBatch) -> Tensor:
        static, streaming, covisits = torch.split(user, [self.settings.dimension, STREAMING, COVISITS], dim=1)
        parts = torch.split(streaming, batch.slices)
        moving = [part @ torch.from_numpy(read).T for part, read in zip(parts, batch.streaming, strict=True)]
        rows, places = torch.from_numpy(batch.covisits.owners), torch.from_numpy(batch.covisits.items)
        paired = (torch.from_numpy(batch.covisits.values) * covisits[rows]).sum(1)  # (E,)
        scores = static @ item.T + torch.cat(moving)  # (R, C)
        return scores.index_put((rows, places), paired, accumulate=True)

    def state(self) -> dict[str, Any]:
        """Return weights, optimiser states and table sizes."""
        return {
            "sizes": self.towers.sizes.as_dict(),
            "towers": self.towers.state_dict(),
            "dense": self.dense.state_dict(),
            "sparse": self.sparse.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Become what `state` returned."""
        self.towers = Towers(TowerSizes(**state["sizes"]))
        self.towers.load_state_dict(state["towers"])
        self._make_optimisers()
        self.dense.load_state_dict(state["dense"])
        self.sparse.load_state_dict(state["sparse"])

    @torch.no_grad()
    def embed_users(self, features: Features, conditions: Ints) -> npt.NDArray[np.float32]:
        """Return user embeddings (B, D + STREAMING + COVISITS)."""
        embeddings: npt.NDArray[np.float32] = self._embed_users(features, conditions).numpy()
        return embeddings

    @torch.no_grad()
    def embed_items(self, items: Ints) -> npt.NDArray[np.float32]:
        """Return static item embeddings (N, D)."""
        embeddings: npt.NDArray[np.float32] = self.towers.item(*self.item_inputs(items)).numpy()
        return embeddings

"""One model and its optimisers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from headwater.features import STREAMING, Features
from training.batches import LearningSettings, PreparedBatch
from training.corpus import Corpus
from training.towers import Towers, TowerSizes

Ints = npt.NDArray[np.int64]


class Learner:
    """Trains towers on examples; vocabulary rows are the corpus' numbers.

    Args:
        corpus: Items and their activity.
        conditional: False trains learned retrieval, which never sees the condition.
    """

    def __init__(self, corpus: Corpus, settings: LearningSettings, conditional: bool = True) -> None:
        self.corpus = corpus
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.towers = Towers(self._sizes(conditional))
        self._make_optimisers()

    def _sizes(self, conditional: bool) -> TowerSizes:
        capacity = len(self.corpus.alive) - 1
        topics = max(64, 1 << (len(self.corpus.topics)).bit_length())
        return TowerSizes(topics, capacity, 0, self.settings.dimension, conditional=conditional)

    def _make_optimisers(self) -> None:
        sparse = [self.towers.user.history.weight, self.towers.item.own.weight]
        ids = {id(weight) for weight in sparse}
        dense = [weight for weight in self.towers.parameters() if id(weight) not in ids]
        self.dense = torch.optim.Adam(dense, lr=self.settings.learning_rate)
        self.sparse = torch.optim.SparseAdam(sparse, lr=self.settings.id_learning_rate)

    def fit_vocabulary(self) -> None:
        """Grow the tables when the corpus outgrew them; the weights stay, the optimisers start anew."""
        sizes = self._sizes(self.towers.sizes.conditional)
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
        examples, candidates, dimension = batch.examples, batch.candidates, self.settings.dimension
        user = self.towers.user(*self.user_inputs(examples.features, batch.conditions))  # (B, D + S)
        item = self.towers.item(*self.item_inputs(candidates.items))  # (C, D)
        weights = user[:, dimension : dimension + STREAMING].split(self.settings.slice_)
        streaming = [w @ torch.from_numpy(s).T for w, s in zip(weights, batch.streaming, strict=True)]
        owners, places = torch.from_numpy(batch.covisits.owners), torch.from_numpy(batch.covisits.items)
        paired = (torch.from_numpy(batch.covisits.values) * user[owners, dimension + STREAMING :]).sum(1)  # (E,)
        logits = user[:, :dimension] @ item.T + torch.cat(streaming) - torch.from_numpy(candidates.log_q)  # (B, C)
        logits = logits.index_put((owners, places), paired, accumulate=True)
        positives = torch.from_numpy(candidates.positives)
        loss = functional.cross_entropy(logits, positives)
        if self.towers.sizes.conditional:
            topics = torch.from_numpy(self.corpus.item_topics[candidates.items])  # (C, T)
            conditions = torch.from_numpy(batch.conditions)
            on_topic = (topics[None] == conditions[:, None, None]).any(-1)  # (B, C)
            within = logits.masked_fill(~on_topic, -1e9)
            loss = loss + self.settings.within_topic * functional.cross_entropy(within, positives)
        self.dense.zero_grad()
        self.sparse.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.dense.step()
        self.sparse.step()  # type: ignore[no-untyped-call]
        return float(loss.detach())

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
        """Return user embeddings (B, D + STREAMING)."""
        embeddings: npt.NDArray[np.float32] = self.towers.user(*self.user_inputs(features, conditions)).numpy()
        return embeddings

    @torch.no_grad()
    def embed_items(self, items: Ints) -> npt.NDArray[np.float32]:
        """Return static item embeddings (N, D)."""
        embeddings: npt.NDArray[np.float32] = self.towers.item(*self.item_inputs(items)).numpy()
        return embeddings

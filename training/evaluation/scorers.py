"""Scorers of items for users: a learner in training, or a bundle as it is served."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from headwater.bundle import Bundle
from headwater.features import Features, encode_items
from training.corpus import Corpus
from training.examples import Examples
from training.learner import Learner

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class SecondStage(Protocol):
    """Ranks one user's best items again."""

    def __call__(
        self, features: Features, user: Floats, items: Floats, streaming: Floats, covisits: Floats, scores: Floats
    ) -> Floats:
        """Return scores (N,) from those of the first stage, its embeddings and both features of pairs."""
        ...


class Scorer(Protocol):
    """Embeds users and items; the score is their inner product."""

    @property
    def steered(self) -> int:
        """Leading dimensions that depend on nothing but the condition, where there is one."""
        ...

    def embed_items(self, items: Ints) -> Floats:
        """Return static embeddings (N, D) of corpus numbers."""
        ...

    def embed_users(self, examples: Examples, conditions: Ints) -> Floats:
        """Return user embeddings (B, D + STREAMING + COVISITS) just before each example, for topics in corpus numbers."""
        ...

    def static_scores(self, user: Floats, items: Floats) -> Floats:
        """Return what the first D dimensions of a user embedding give items (N, D): (N,)."""
        ...

    @property
    def second_stage(self) -> SecondStage | None:
        """The stage that ranks the best items inside an exact filter again, if there is one."""
        ...


class LearnerScorer:
    """A learner's towers as they are now."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.steered = learner.towers.sizes.steered
        self.second_stage: SecondStage | None = learner.rank_again if learner.ranker else None

    def embed_items(self, items: Ints) -> Floats:
        return self._learner.embed_items(items)

    def embed_users(self, examples: Examples, conditions: Ints) -> Floats:
        return self._learner.embed_users(examples.features, conditions)

    def static_scores(self, user: Floats, items: Floats) -> Floats:
        return self._learner.static_scores(user, items)


class SteeredScorer(LearnerScorer):
    """A learner whose conditions weigh more or less, inside a filter too: relevance against engagement."""

    def __init__(self, learner: Learner, strength: float) -> None:
        super().__init__(learner)
        self._topical, self._strength = learner.towers.sizes.topical, strength
        self.steered = 0

    def embed_users(self, examples: Examples, conditions: Ints) -> Floats:
        embeddings = super().embed_users(examples, conditions)
        embeddings[:, : self._topical] *= self._strength
        return embeddings


class BundleScorer:
    """A published bundle through ONNX Runtime; corpus numbers become the bundle's."""

    second_stage = None

    def __init__(self, bundle: Bundle, corpus: Corpus) -> None:
        self._bundle, self._corpus = bundle, corpus
        self.steered = bundle.manifest.topical
        vocabulary = bundle.vocabulary
        self._items = np.array([0, *(vocabulary.item_index.get(item.item_id, 0) for item in corpus.items)])
        self._topics = np.array([0, *(vocabulary.topic_index.get(topic, 0) for topic in corpus.topics)])

    def embed_items(self, items: Ints) -> Floats:
        known = [self._corpus.items[number - 1] for number in items.tolist()]
        return self._bundle.item_tower.embed(encode_items(known, self._bundle.vocabulary))

    def embed_users(self, examples: Examples, conditions: Ints) -> Floats:
        features: Features = dict(examples.features)
        features["history_items"] = self._items[examples.features["history_items"].astype(np.int64)]
        features["topic_ids"] = self._topics[examples.features["topic_ids"].astype(np.int64)]
        features["condition"] = self._topics[conditions]
        return self._bundle.user_tower.embed(features)

    def static_scores(self, user: Floats, items: Floats) -> Floats:
        scores: Floats = items @ user[: items.shape[1]]
        return scores

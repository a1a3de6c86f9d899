"""The two towers.

score(user, condition, item, now) =
    <user[:D], item_embedding> + <user[D:D+S], streaming_features(item, now)> + <user[D+S:], covisits(user, item, now)>
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from headwater.activity import WINDOWS
from headwater.covisit_features import COVISITS
from headwater.features import CONTEXT, STREAMING
from training.fusion import FUSIONS, FusionSizes, Steer

POPULARITY_START = (0.75, 0.8, 0.4, 0.1, 0.0)
USER_TOPIC = 32
ID_EMBEDDINGS = "user.history.weight", "item.own.weight"
"""Of `Towers`: what has a row for each item that has one in the id table."""


@dataclass(frozen=True)
class TowerSizes:
    """Shapes of the towers, by which of `FUSIONS` the condition enters, and whether an item has several id rows."""

    topics: int
    items: int
    dimension: int = 64
    hidden: int = 128
    personas: int = 1
    fusion: str = "steer"
    several_rows: bool = False

    @property
    def topical(self) -> int:
        """Dimensions that say what an item is about."""
        return self.dimension // 2

    @property
    def steered(self) -> int:
        """Leading dimensions that depend on nothing but the condition, where there is one."""
        return self.topical if self.fusion == "steer" else 0

    @property
    def own(self) -> int:
        """Dimensions for the user's taste; separate, so that both learn at their own pace."""
        return self.dimension - self.topical

    def as_dict(self) -> dict[str, int | str]:
        """Return the sizes for a run record."""
        return asdict(self)


def looked_up(table: nn.Embedding, rows: Tensor, dimensions: int) -> Tensor:
    """Return embeddings of ids in so many dimensions; where an id has several rows they are added; row 0 is nothing."""
    if rows.dim() == dimensions:
        found: Tensor = table(rows) * (rows > 0).float().unsqueeze(-1)
        return found
    summed: Tensor = functional.embedding_bag(rows.flatten(0, -2), table.weight, mode="sum", padding_idx=0)
    return summed.view(*rows.shape[:-1], summed.shape[1]) / math.sqrt(rows.shape[-1])


class ItemTower(nn.Module):
    """What an item is about; and, for taste, its own embedding, where it is trained, with its topics."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.own = nn.Embedding(sizes.items + 1, sizes.own, sparse=not sizes.several_rows)
        self.about = nn.Embedding(sizes.topics + 1, sizes.topical, padding_idx=0)
        self.taste = nn.Embedding(sizes.topics + 1, sizes.own, padding_idx=0)
        nn.init.zeros_(self.own.weight)
        nn.init.normal_(self.about.weight, std=0.3)
        nn.init.normal_(self.taste.weight, std=0.1)
        with torch.no_grad():
            self.about.weight[0] = 0.0
            self.taste.weight[0] = 0.0

    def forward(self, item: Tensor, topics: Tensor) -> Tensor:
        known = (topics > 0).float().unsqueeze(-1)  # (N, T, 1)
        share = known.sum(1).clamp(min=1.0).rsqrt()  # (N, 1)
        about = (self.about(topics) * known).sum(1) * share  # (N, D / 2)
        own = looked_up(self.own, item, 1) + (self.taste(topics) * known).sum(1) * share
        return torch.cat((about, own), dim=1)  # (N, D)


class UserTower(nn.Module):
    """History, topics and context make the user; a fusion brings in the condition.

    With several personas (AMP-CF, Barkan et al. 2020) each attends to its own part of the history. The first one's taste
    is in the taste dimensions; those of the others follow at the end of the user embedding, (K - 1) x D / 2.
    """

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        width = sizes.dimension + STREAMING + COVISITS
        person = sizes.own + USER_TOPIC + CONTEXT
        self.topical, self.dimension = sizes.topical, sizes.dimension
        self.history = nn.Embedding(sizes.items + 1, sizes.own, sparse=not sizes.several_rows)
        self.topic = nn.Embedding(sizes.topics + 1, USER_TOPIC, padding_idx=0)
        self.recency = nn.Parameter(torch.tensor([0.5]))
        self.attention = nn.Parameter(torch.randn(sizes.personas, sizes.own)) if sizes.personas > 1 else None
        self.fusion = FUSIONS[sizes.fusion](FusionSizes(person, sizes.topics, width, sizes.topical, sizes.hidden))
        self.through = nn.Linear(sizes.own, sizes.own, bias=False)
        self.start = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.history.weight, std=0.05)
        nn.init.eye_(self.through.weight)
        with torch.no_grad():
            self.start[sizes.dimension : sizes.dimension + WINDOWS] = torch.tensor(POPULARITY_START)

    def forward(
        self,
        history_items: Tensor,
        history_ages: Tensor,
        topic_ids: Tensor,
        topic_weights: Tensor,
        condition: Tensor,
        context: Tensor,
    ) -> Tensor:
        people = self.people(history_items, history_ages, topic_ids, topic_weights, context)
        return self.asked(*people, condition)

    def people(
        self, history_items: Tensor, history_ages: Tensor, topic_ids: Tensor, topic_weights: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what does not depend on conditions: the fusion's input (B, P) and tastes (B, K, D / 2)."""
        pasts = self._pasts(history_items, history_ages)  # (B, K, D / 2)
        topical = (self.topic(topic_ids) * topic_weights.unsqueeze(-1)).sum(1)  # (B, 32)
        return torch.cat((pasts.mean(1), topical, context), dim=1), self.through(pasts)

    def asked(self, person: Tensor, tastes: Tensor, condition: Tensor) -> Tensor:
        """Return user embeddings (B, D + S + V + (K - 1) D / 2) with conditions (B,)."""
        embedding: Tensor = self.start + self.fusion(person, condition)  # (B, D + S + V)
        taste = functional.pad(tastes[:, 0], (self.topical, STREAMING + COVISITS))
        if self.attention is None:
            return embedding + taste
        others = embedding[:, None, self.topical : self.dimension] + tastes[:, 1:]
        return torch.cat((embedding + taste, others.flatten(1)), dim=1)

    def _pasts(self, history_items: Tensor, history_ages: Tensor) -> Tensor:
        known = (history_items if history_items.dim() == 2 else history_items.amax(2)).gt(0).float()  # (B, H)
        items = looked_up(self.history, history_items, 2)  # (B, H, D / 2)
        weight = (torch.exp(-functional.softplus(self.recency) * history_ages) * known).unsqueeze(1)  # (B, 1, H)
        if self.attention is not None:
            weight = weight * torch.exp(torch.tanh(items @ self.attention.T)).transpose(1, 2)  # (B, K, H)
        weight = weight / weight.sum(2, keepdim=True).clamp(min=1.0)
        past: Tensor = weight @ items
        return past


def static_scores(user: Tensor, item: Tensor, sizes: TowerSizes) -> Tensor:
    """Return the static part of the scores (B, C) of user embeddings with item embeddings (C, D).

    Of several personas the one that scores an item highest weighs most in its score.
    """
    if sizes.personas == 1:
        return user[:, : sizes.dimension] @ item.T
    first = user[:, None, sizes.topical : sizes.dimension]
    others = user[:, sizes.dimension + STREAMING + COVISITS :].reshape(len(user), -1, sizes.own)
    wants = torch.cat((first, others), dim=1) @ item[:, sizes.topical :].T  # (B, K, C)
    return user[:, : sizes.topical] @ item[:, : sizes.topical].T + (torch.softmax(wants, dim=1) * wants).sum(1)


class Towers(nn.Module):
    """Both towers of one model."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.user = UserTower(sizes)
        self.item = ItemTower(sizes)
        if isinstance(self.user.fusion, Steer):
            self.user.fusion.about = self.item.about

    @contextmanager
    def for_serving(self) -> Iterator["Towers"]:
        """Replace the trained weights by those to serve: every topic can be asked for, see `Steer.equalised`."""
        fusion = self.user.fusion
        if not isinstance(fusion, Steer):
            yield self
            return
        trained = fusion.aside.weight.data
        fusion.aside.weight.data = fusion.equalised()
        try:
            yield self
        finally:
            fusion.aside.weight.data = trained

    def resized(self, sizes: TowerSizes, former: Tensor, rows: Tensor) -> "Towers":
        """Return towers of other vocabularies that start from these weights.

        Args:
            sizes: Their shapes.
            former, rows: (N,) what was row `former[n]` of the id embeddings is row `rows[n]` of theirs.
        """
        towers = Towers(sizes)
        old = self.state_dict()
        with torch.no_grad():
            for name, fresh in towers.state_dict().items():
                if name in ID_EMBEDDINGS:
                    fresh[rows] = old[name][former]
                elif fresh.shape == old[name].shape:
                    fresh.copy_(old[name])
                else:
                    topics = min(len(fresh), len(old[name]))
                    fresh[:topics] = old[name][:topics]
        return towers

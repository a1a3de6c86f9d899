"""The two towers.

score(user, condition, item, now) =
    <user[:D], item_embedding> + <user[D:D+S], streaming_features(item, now)> + <user[D+S:], covisits(user, item, now)>
"""

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


@dataclass(frozen=True)
class TowerSizes:
    """Shapes of the towers, and by which of `FUSIONS` the condition enters."""

    topics: int
    items: int
    numeric: int
    dimension: int = 64
    hidden: int = 128
    fusion: str = "steer"

    @property
    def topical(self) -> int:
        """Dimensions that say what an item is about."""
        return self.dimension // 2

    @property
    def own(self) -> int:
        """Dimensions for the person's taste; apart from the others, so that both learn at their pace."""
        return self.dimension - self.topical

    def as_dict(self) -> dict[str, int | str]:
        """Return the sizes for a run record."""
        return asdict(self)


class ItemTower(nn.Module):
    """What an item is about; and, for taste, its own embedding, where it is trained, with its topics and attributes."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.own = nn.Embedding(sizes.items + 1, sizes.own, sparse=True)
        self.about = nn.Embedding(sizes.topics + 1, sizes.topical, padding_idx=0)
        self.taste = nn.Embedding(sizes.topics + 1, sizes.own, padding_idx=0)
        self.numeric = nn.Linear(sizes.numeric, sizes.own, bias=False) if sizes.numeric else None
        nn.init.zeros_(self.own.weight)
        nn.init.normal_(self.about.weight, std=0.3)
        nn.init.normal_(self.taste.weight, std=0.1)
        with torch.no_grad():
            self.about.weight[0] = 0.0
            self.taste.weight[0] = 0.0

    def forward(self, item: Tensor, topics: Tensor, numeric: Tensor) -> Tensor:
        known = (topics > 0).float().unsqueeze(-1)  # (N, T, 1)
        share = known.sum(1).clamp(min=1.0).rsqrt()  # (N, 1)
        about = (self.about(topics) * known).sum(1) * share  # (N, D / 2)
        own = self.own(item) * (item > 0).float().unsqueeze(-1) + (self.taste(topics) * known).sum(1) * share
        if self.numeric is not None:
            own = own + self.numeric(numeric)
        return torch.cat((about, own), dim=1)  # (N, D)


class UserTower(nn.Module):
    """History, topics and context make the person; a fusion brings in the condition."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        width = sizes.dimension + STREAMING + COVISITS
        person = sizes.own + USER_TOPIC + CONTEXT
        self.topical = sizes.topical
        self.history = nn.Embedding(sizes.items + 1, sizes.own, sparse=True)
        self.topic = nn.Embedding(sizes.topics + 1, USER_TOPIC, padding_idx=0)
        self.recency = nn.Parameter(torch.tensor([0.5]))
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
        known = (history_items > 0).float()  # (B, H)
        weight = torch.exp(-functional.softplus(self.recency) * history_ages) * known  # (B, H)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1.0)
        past = (self.history(history_items) * weight.unsqueeze(-1)).sum(1)  # (B, D / 2)
        topical = (self.topic(topic_ids) * topic_weights.unsqueeze(-1)).sum(1)  # (B, 32)
        fused = self.fusion(torch.cat((past, topical, context), dim=1), condition)  # (B, D + S + V)
        taste = functional.pad(self.through(past), (self.topical, STREAMING + COVISITS))
        embedding: Tensor = self.start + fused + taste
        return embedding


class Towers(nn.Module):
    """Both towers of one model."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.user = UserTower(sizes)
        self.item = ItemTower(sizes)
        if isinstance(self.user.fusion, Steer):
            self.user.fusion.about = self.item.about

    def grown(self, sizes: TowerSizes) -> "Towers":
        """Return towers of larger vocabularies that start from these weights."""
        towers = Towers(sizes)
        old = self.state_dict()
        with torch.no_grad():
            for name, fresh in towers.state_dict().items():
                rows = min(len(fresh), len(old[name])) if fresh.dim() else 0
                if fresh.shape == old[name].shape:
                    fresh.copy_(old[name])
                else:
                    fresh[:rows] = old[name][:rows]
        return towers

"""The two towers.

score(user, condition, item, now) = <user_embedding[:D], item_embedding> + <user_embedding[D:], streaming_features>
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from headwater.activity import WINDOWS
from headwater.covisits import COVISITS
from headwater.features import CONTEXT, STREAMING

POPULARITY_START = (0.75, 0.8, 0.4, 0.1, 0.0)


@dataclass(frozen=True)
class TowerSizes:
    """Shapes of the towers; `conditional` False leaves the condition out (learned retrieval)."""

    topics: int
    items: int
    numeric: int
    dimension: int = 64
    hidden: int = 128
    conditional: bool = True

    @property
    def topical(self) -> int:
        """Dimensions that say what an item is about."""
        return self.dimension // 2

    @property
    def own(self) -> int:
        """Dimensions that tell items of one topic apart; apart from the others, so that both learn at their pace."""
        return self.dimension - self.topical

    def as_dict(self) -> dict[str, int | bool]:
        """Return the sizes for a run record."""
        return asdict(self)


class ItemTower(nn.Module):
    """An item's own embedding, where it is trained, plus its topics and numeric attributes."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.own = nn.Embedding(sizes.items + 1, sizes.own, sparse=True)
        self.topic = nn.Embedding(sizes.topics + 1, sizes.topical, padding_idx=0)
        self.numeric = nn.Linear(sizes.numeric, sizes.own, bias=False) if sizes.numeric else None
        nn.init.zeros_(self.own.weight)
        nn.init.normal_(self.topic.weight, std=0.3)
        with torch.no_grad():
            self.topic.weight[0] = 0.0

    def forward(self, item: Tensor, topics: Tensor, numeric: Tensor) -> Tensor:
        known = (topics > 0).float()  # (N, T)
        count = known.sum(1, keepdim=True).clamp(min=1.0)
        topical = (self.topic(topics) * known.unsqueeze(-1)).sum(1) / count.sqrt()  # (N, D / 2)
        own = self.own(item) * (item > 0).float().unsqueeze(-1)  # (N, D / 2)
        if self.numeric is not None:
            own = own + self.numeric(numeric)
        return torch.cat((topical, own), dim=1)  # (N, D)


class UserTower(nn.Module):
    """History, topics and context with the condition: concatenation, an MLP, and the condition's own direction."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        width = sizes.dimension + STREAMING + COVISITS
        self.conditional = sizes.conditional
        self.history = nn.Embedding(sizes.items + 1, sizes.own, sparse=True)
        self.topic = nn.Embedding(sizes.topics + 1, 32, padding_idx=0)
        self.condition = nn.Embedding(sizes.topics + 1, 32)
        self.direction = nn.Embedding(sizes.topics + 1, sizes.topical)
        self.recency = nn.Parameter(torch.tensor([0.5, 0.0]))
        self.mlp = nn.Sequential(
            nn.Linear(sizes.own + 32 + 32 + CONTEXT, sizes.hidden),
            nn.GELU(),
            nn.Linear(sizes.hidden, width),
        )
        self.through = nn.Linear(sizes.own, sizes.own, bias=False)
        self.start = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.history.weight, std=0.05)
        nn.init.normal_(self.condition.weight, std=0.3)
        nn.init.zeros_(self.direction.weight)
        nn.init.eye_(self.through.weight)
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
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
        weight = torch.exp(-functional.softplus(self.recency[0]) * history_ages) * known  # (B, H)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1.0)
        past = (self.history(history_items) * weight.unsqueeze(-1)).sum(1)  # (B, D / 2)
        topical = (self.topic(topic_ids) * topic_weights.unsqueeze(-1)).sum(1)  # (B, 32)
        if not self.conditional:
            condition = torch.zeros_like(condition)
        mixed = self.mlp(torch.cat((past, topical, self.condition(condition), context), dim=1))  # (B, D + S)
        about = self.direction(condition) * float(self.conditional)  # (B, D / 2)
        static = torch.cat((about, self.through(past)), dim=1)  # (B, D)
        embedding: Tensor = self.start + mixed + functional.pad(static, (0, STREAMING + COVISITS))
        return embedding


class Towers(nn.Module):
    """Both towers of one model."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.user = UserTower(sizes)
        self.item = ItemTower(sizes)
        if sizes.conditional:
            with torch.no_grad():  # a condition starts in the direction of its topic's items
                self.user.direction.weight.copy_(4.0 * self.item.topic.weight)

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

"""How the user tower combines user and condition: one module per fusion.

Each maps the user (`person`, (B, P)) and the condition (B,), 0 for none, to a user embedding (B, width). Its first `topical`
dimensions are multiplied with those of an item that say what it is about.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONDITION = 32
STRENGTH_START = 4.0
EXPERTS = 4


@dataclass(frozen=True)
class FusionSizes:
    """Shapes: `person` in, `width` out, `topical` of it leading; `topics` conditions; `hidden` units between."""

    person: int
    topics: int
    width: int
    topical: int
    hidden: int


def _mlp(inputs: int, hidden: int, width: int) -> nn.Sequential:
    """Return a perceptron that starts close to zero."""
    last = nn.Linear(hidden, width)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), last)


def _conditions(topics: int, width: int = CONDITION) -> nn.Embedding:
    table = nn.Embedding(topics + 1, width)
    nn.init.normal_(table.weight, std=0.3)
    return table


class Steer(nn.Module):
    """The topical dimensions are the topic's direction (shared with the item tower) if there is a condition; otherwise, and
    in all others, the user's.

    Since the direction is shared, a topic that no example asked for can be asked for. `aside` corrects it; it is learned
    from examples that ask for the topic, and zero until then.
    """

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self.topical = sizes.topical
        self.mlp = _mlp(sizes.person, sizes.hidden, sizes.width)
        self.about = nn.Embedding(sizes.topics + 1, sizes.topical, padding_idx=0)
        self.strength = nn.Parameter(torch.tensor(STRENGTH_START))
        self.aside = nn.Embedding(sizes.topics + 1, sizes.topical, padding_idx=0)
        nn.init.zeros_(self.aside.weight)

    def forward(self, person: Tensor, condition: Tensor) -> Tensor:
        direction = self.strength * self.about(condition) + self.aside(condition)
        mixed = self.mlp(person)
        topical = torch.where((condition > 0).unsqueeze(1), direction, mixed[:, : self.topical])
        return torch.cat((topical, mixed[:, self.topical :]), dim=1)

    @torch.no_grad()
    def equalised(self) -> Tensor:
        """Return `aside` (T + 1, topical) with which topics never asked for score their items as the others do on average."""
        about, aside = self.about.weight, self.aside.weight
        pulls = ((self.strength * about + aside) * about).sum(1)  # (T + 1,)
        asked = aside.any(1)
        if not asked.any():
            return aside
        more = (pulls[asked].mean() / pulls.clamp(min=1e-6) - 1.0).masked_fill(asked, 0.0)
        return aside + more.unsqueeze(1) * self.strength * about


class Unconditioned(nn.Module):
    """The user alone: learned retrieval, which never sees the condition."""

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self.mlp = _mlp(sizes.person, sizes.hidden, sizes.width)

    def forward(self, person: Tensor, condition: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(person)
        return mixed


class GlobalWeights(nn.Module):
    """Neither: the same weights for every user, which is logistic regression over the streaming features."""

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self.width = sizes.width

    def forward(self, person: Tensor, condition: Tensor) -> Tensor:
        return person.new_zeros(len(person), self.width)


class Sum(nn.Module):
    """Fusion at embedding level: a vector of the condition is added to the user's."""

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self.mlp = _mlp(sizes.person, sizes.hidden, sizes.width)
        self.added = _conditions(sizes.topics, sizes.width)

    def forward(self, person: Tensor, condition: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(person) + self.added(condition)
        return mixed


class Concatenation(nn.Module):
    """User and condition side by side through a perceptron (arXiv 2508.16793)."""

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self.condition = _conditions(sizes.topics)
        self.mlp = _mlp(sizes.person + CONDITION, sizes.hidden, sizes.width)

    def forward(self, person: Tensor, condition: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(torch.cat((person, self.condition(condition)), dim=1))
        return mixed


class Cross(nn.Module):
    """Two cross layers over user and condition before the perceptron (DCN V2, arXiv 2008.13535)."""

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        both = sizes.person + CONDITION
        self.condition = _conditions(sizes.topics)
        self.crosses = nn.ModuleList(nn.Linear(both, both) for _ in range(2))
        self.mlp = _mlp(both, sizes.hidden, sizes.width)

    def forward(self, person: Tensor, condition: Tensor) -> Tensor:
        first = torch.cat((person, self.condition(condition)), dim=1)
        crossed = first
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        mixed: Tensor = self.mlp(crossed)
        return mixed


class Experts(nn.Module):
    """The condition mixes experts that scale the singular values of one weight matrix (Transformer², arXiv 2501.06252)."""

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self.into = nn.Linear(sizes.person, sizes.hidden)
        self.last = _mlp(sizes.hidden, sizes.hidden, sizes.width)
        left, values, right = torch.linalg.svd(torch.randn(sizes.hidden, sizes.hidden) / sizes.hidden**0.5)
        self.left, self.values, self.right = nn.Parameter(left), nn.Parameter(values), nn.Parameter(right)
        self.scales = nn.Parameter(torch.zeros(EXPERTS, sizes.hidden))
        self.mixture = _conditions(sizes.topics, EXPERTS)
        self.added = _conditions(sizes.topics, sizes.width)

    def forward(self, person: Tensor, condition: Tensor) -> Tensor:
        scales = 1.0 + torch.softmax(self.mixture(condition), dim=1) @ self.scales  # (B, hidden)
        turned = (nn.functional.gelu(self.into(person)) @ self.right.T) * (self.values * scales) @ self.left.T
        mixed: Tensor = self.last(turned) + self.added(condition)
        return mixed


FUSIONS: dict[str, type[nn.Module]] = {
    "steer": Steer,
    "alone": Unconditioned,
    "constant": GlobalWeights,
    "sum": Sum,
    "concatenation": Concatenation,
    "cross": Cross,
    "experts": Experts,
}

"""The second stage: for the best items, what one inner product of user and item cannot express."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from headwater.covisit_features import COVISITS
from headwater.features import STREAMING
from training.towers import TowerSizes

RANKED = 200
"""Items of a topic that are ranked again."""
HIDDEN = 64
FAR = -1e9


class Shortlist(NamedTuple):
    """The first stage's best items for B users, in any order.

    Attributes:
        user: (B, D + STREAMING + COVISITS) user embeddings as inside an exact filter.
        history: (B, H, D / 2) embeddings of past items, 0 where there is none.
        ages: (B, H) log1p hours since.
        items: (B, N, D) static item embeddings.
        streaming: (B, N, STREAMING).
        covisits: (B, N, COVISITS).
        scores: (B, N) of the first stage; at most `FAR` where there is no item.
    """

    user: Tensor
    history: Tensor
    ages: Tensor
    items: Tensor
    streaming: Tensor
    covisits: Tensor
    scores: Tensor


class Ranker(nn.Module):
    """Adds to the first stage's scores; each item attends to the past by itself (target attention, DIN: Zhou et al. 2018).

    It starts as the first stage: its last layer is zero.
    """

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.recency = nn.Parameter(torch.tensor([0.5]))
        self.person = nn.Linear(sizes.dimension + STREAMING + COVISITS, HIDDEN)
        self.pair = nn.Linear(sizes.dimension + 2 * sizes.own + 2 * STREAMING + COVISITS + 1, HIDDEN)
        self.deeper = nn.Linear(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        user: Tensor,
        history: Tensor,
        ages: Tensor,
        items: Tensor,
        streaming: Tensor,
        covisits: Tensor,
        scores: Tensor,
    ) -> Tensor:
        """Return scores (B, N); see `Shortlist`."""
        taste = items[:, :, self.sizes.topical :]  # (B, N, P)
        absent = (history.abs().sum(2) == 0).float() * FAR - functional.softplus(self.recency) * ages  # (B, H)
        recalled = torch.softmax(taste @ history.transpose(1, 2) + absent.unsqueeze(1), dim=2) @ history  # (B, N, P)
        crowd = torch.softmax(scores, dim=1).unsqueeze(1) @ streaming  # (B, 1, S)
        behind = (scores - scores.amax(1, keepdim=True)).clamp(min=-20.0).unsqueeze(2)
        pairs = torch.cat((items, recalled, recalled * taste, streaming, streaming - crowd, covisits, behind), dim=2)
        hidden = functional.gelu(self.pair(pairs) + self.person(user).unsqueeze(1))
        more: Tensor = self.out(functional.gelu(self.deeper(hidden))).squeeze(2)
        return scores + more

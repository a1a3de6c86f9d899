"""Losses over the logits of a batch."""

from typing import Any

import torch
from torch import Tensor

REWARDED = 10
"""Length of the drawn rankings."""
DRAWS = 4
"""Rankings drawn per row."""


class _CrossEntropy(torch.autograd.Function):
    """Softmax cross entropy whose gradient is computed in place of the shares: logits are large, and each pass costs time."""

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
    """Return the mean loss of logits (R, C) whose positives are in columns `positives` (R,); its gradient can be taken once."""
    loss: Tensor = _CrossEntropy.apply(logits, positives)
    return loss


def reward_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Return a loss whose gradient raises the expected NDCG@10 of rankings drawn from the scores (REINFORCE).

    Args:
        logits: (R, C), of which a ranking is drawn without replacement (Plackett-Luce).
        positives: (R,) columns of the items that are rewarded.
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

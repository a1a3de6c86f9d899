"""The sparse part of a score matrix and its gradient, compiled: a batch has hundreds of covisits an example."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from headwater.covisit_features import COVISITS, CovisitFeatures
from headwater.sparse_rows import bounds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_FLOATS, _INTS = "float32[:, ::1]", "int64[::1]"
_SIGNATURE = f"void({_FLOATS}, {_FLOATS}, {_INTS}, {_INTS}, {_INTS}, {_FLOATS})"


def add_covisits(scores: Tensor, weights: Tensor, covisits: CovisitFeatures, rows: Ints) -> Tensor:
    """Add to scores, in place, what a pair's covisits weigh.

    Args:
        scores: (R, C) float32.
        weights: (R, COVISITS) float32.
        covisits: Of B examples and C items.
        rows: (R,) the example of each row.
    """
    added: Tensor = _AddCovisits.apply(scores, weights, covisits, rows)
    return added


class _AddCovisits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weights: Tensor, covisits: CovisitFeatures, rows: Ints) -> Tensor:
        ctx.entries = *bounds(covisits.owners, rows), covisits.items, covisits.values
        ctx.mark_dirty(scores)
        _add(scores.numpy(), weights.contiguous().numpy(), *ctx.entries)
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_weights = np.zeros((len(gradient), COVISITS), dtype=np.float32)
        _add_gradient(gradient.contiguous().numpy(), of_weights, *ctx.entries)
        return gradient, torch.from_numpy(of_weights), None, None


@njit(_SIGNATURE, cache=True, nogil=True)
def _add(scores: Floats, weights: Floats, begins: Ints, ends: Ints, items: Ints, values: Floats) -> None:
    for row in range(len(begins)):
        for entry in range(begins[row], ends[row]):
            more = np.float32(0.0)
            for feature in range(COVISITS):
                more += weights[row, feature] * values[entry, feature]
            scores[row, items[entry]] += more


@njit(_SIGNATURE, cache=True, nogil=True)
def _add_gradient(gradient: Floats, of_weights: Floats, begins: Ints, ends: Ints, items: Ints, values: Floats) -> None:
    for row in range(len(begins)):
        for entry in range(begins[row], ends[row]):
            of_score = gradient[row, items[entry]]
            for feature in range(COVISITS):
                of_weights[row, feature] += of_score * values[entry, feature]

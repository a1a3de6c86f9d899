"""The part of a score matrix from streaming and co-visitation features, and its gradient."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from headwater.covisit_features import COVISITS, CovisitFeatures
from headwater.features import STREAMING
from headwater.sparse_rows import bounds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_FLOATS, _STRIDED, _INTS = "float32[:, ::1]", "float32[:, :]", "int64[::1]"
_SIGNATURE = f"void({_FLOATS}, {_STRIDED}, {_INTS}, {_INTS}, {_INTS}, {_FLOATS})"


class DynamicFeatures(NamedTuple):
    """Streaming and co-visitation features of C items at the times of B examples; each example has some of R rows.

    Attributes:
        slices: Number of rows of each slice of examples; R in all.
        streaming: For each slice (C, STREAMING), before the slice was counted.
        covisits: Sparse (B, C, COVISITS), likewise.
    """

    slices: list[int]
    streaming: list[Floats]
    covisits: CovisitFeatures


def add_dynamic_scores(scores: Tensor, weights: Tensor, features: DynamicFeatures, rows: Ints) -> Tensor:
    """Add the features times their weights to scores, in place.

    Args:
        scores: (R, C) float32.
        weights: (R, STREAMING + COVISITS) float32.
        features: Of the items.
        rows: (R,) the example of each row, ascending.
    """
    added: Tensor = _AddDynamicScores.apply(scores, weights, features, rows)
    return added


class _AddDynamicScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weights: Tensor, features: DynamicFeatures, rows: Ints) -> Tensor:
        covisits = features.covisits
        ctx.entries = *bounds(covisits.owners, rows), covisits.items, covisits.values
        ctx.features = features
        ctx.mark_dirty(scores)
        for of_slice, own, streaming in _by_slice(features, scores, weights):
            of_slice.addmm_(own[:, :STREAMING], streaming.T)
        _add(scores.numpy(), weights[:, STREAMING:].numpy(), *ctx.entries)
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gradient = gradient.contiguous()
        of_weights = gradient.new_zeros((len(gradient), STREAMING + COVISITS))
        for of_slice, own, streaming in _by_slice(ctx.features, gradient, of_weights):
            torch.mm(of_slice, streaming, out=own[:, :STREAMING])
        _add_gradient(gradient.numpy(), of_weights[:, STREAMING:].numpy(), *ctx.entries)
        return gradient, of_weights, None, None


def _by_slice(features: DynamicFeatures, scores: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield views of each slice's scores and weights, and its streaming features."""
    streaming = map(torch.from_numpy, features.streaming)
    return zip(torch.split(scores, features.slices), torch.split(weights, features.slices), streaming, strict=True)


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

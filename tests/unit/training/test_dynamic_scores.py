import numpy as np
import torch

from headwater.covisit_features import COVISITS, CovisitFeatures
from headwater.features import STREAMING
from training.dynamic_scores import DynamicFeatures, add_dynamic_scores


def test_scores_and_gradients_are_those_of_a_dense_product() -> None:
    random = np.random.default_rng(0)
    examples, items, rows, slices = 4, 7, np.array([0, 0, 1, 3, 3]), [3, 2]
    dense = random.random((examples, items, COVISITS), dtype=np.float32)
    dense[random.random((examples, items)) < 0.5] = 0.0
    dense[1] = 0.0
    owners, places = map(np.ascontiguousarray, np.nonzero(dense.any(axis=2)))
    covisits = CovisitFeatures(owners, places, dense[owners, places])
    streaming = [random.random((items, STREAMING), dtype=np.float32) for _ in slices]
    features = np.concatenate((np.repeat(streaming, slices, axis=0), dense[rows]), axis=2)  # (R, C, S + V)
    scores = torch.rand(len(rows), items, requires_grad=True)
    weights = torch.rand(len(rows), STREAMING + COVISITS, requires_grad=True)
    expected = scores + torch.einsum("rcv,rv->rc", torch.from_numpy(features), weights)
    added = add_dynamic_scores(scores.clone(), weights, DynamicFeatures(slices, streaming, covisits), rows)
    torch.testing.assert_close(added, expected)
    pull = torch.rand(len(rows), items)
    ours, theirs = (torch.autograd.grad(each, (scores, weights), pull) for each in (added, expected))
    for of_ours, of_theirs in zip(ours, theirs, strict=True):
        torch.testing.assert_close(of_ours, of_theirs)

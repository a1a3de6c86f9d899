import torch
from torch.nn import functional

from training.learner import cross_entropy
from training.ranker import FAR


def test_losses_and_gradients_are_those_of_torch() -> None:
    logits = torch.randn(5, 9, requires_grad=True)
    with torch.no_grad():
        logits[torch.arange(5), torch.arange(5)] = FAR
    positives = torch.tensor([1, 2, 8, 0, 7])
    ours, theirs = cross_entropy(logits, positives), functional.cross_entropy(logits, positives)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(3.0 * loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0].diagonal().any()

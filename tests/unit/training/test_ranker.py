"""The second stage: where it starts from, and that ONNX Runtime ranks as torch does, in time."""

import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from headwater.covisit_features import COVISITS
from headwater.features import HISTORY, STREAMING
from training.export import export_ranker
from training.ranker import FAR, RANKED, Ranker, Shortlist
from training.towers import TowerSizes

SIZES = TowerSizes(10, 100)
MOST_MS = 5.0


def shortlist(users: int, items: int) -> Shortlist:
    torch.manual_seed(0)
    history = torch.randn(users, HISTORY, SIZES.own)
    history[:, 3:] = 0.0
    return Shortlist(
        torch.randn(users, SIZES.dimension + STREAMING + COVISITS),
        history,
        torch.rand(users, HISTORY),
        torch.randn(users, items, SIZES.dimension),
        torch.randn(users, items, STREAMING),
        torch.randn(users, items, COVISITS),
        torch.randn(users, items),
    )


def test_untrained_it_is_the_first_stage() -> None:
    listed = shortlist(3, 20)
    assert torch.equal(Ranker(SIZES)(*listed), listed.scores)


def test_places_without_an_item_stay_last() -> None:
    ranker, listed = Ranker(SIZES), shortlist(3, 20)
    torch.nn.init.normal_(ranker.out.weight)
    listed.scores[:, 15:] = FAR
    again = ranker(*listed)
    assert again.isfinite().all()
    assert (again[:, 15:].amax(1) < again[:, :15].amin(1)).all()


def test_onnx_ranks_as_torch_does_within_its_time(tmp_path: Path) -> None:
    ranker = Ranker(SIZES).eval()
    torch.nn.init.normal_(ranker.out.weight)
    export_ranker(ranker, tmp_path / "ranker.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(tmp_path / "ranker.onnx"), options)
    taken_ms = []
    for users in (4, *(1,) * 20):
        listed = shortlist(users, RANKED)
        feed = {name: value.numpy() for name, value in listed._asdict().items()}
        started = time.perf_counter()
        (scores,) = session.run(None, feed)
        taken_ms.append((time.perf_counter() - started) * 1000)
        np.testing.assert_allclose(scores, ranker(*listed).detach().numpy(), atol=1e-4)
    print(f"{RANKED} items ranked again in {np.median(taken_ms[1:]):.2f} ms")
    assert np.median(taken_ms[1:]) < MOST_MS

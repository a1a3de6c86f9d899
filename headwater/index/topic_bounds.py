"""Which topics may hold the best items for a user."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from headwater.index.block import Block


class TopicBounds:
    """Snapshot of each topic's centroid and spread, to rank topics by the score their best item may reach.

    Of n items that are spread normally around a centroid, the best for a user lies about sqrt(2 ln n) standard deviations
    from it in the user's direction.
    """

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        self._topics = list(blocks)
        self._centroids = np.stack([block.centroid() for block in blocks.values()])
        sizes = np.array([len(block) for block in blocks.values()])
        self._reach = np.array([block.spread() for block in blocks.values()]) * np.sqrt(2 * np.log(sizes))

    def promising(self, embedding: npt.NDArray[np.float32]) -> Iterator[str]:
        """Yield the topics for a static user embedding (D,), highest expected best score first."""
        expected = self._centroids @ embedding + np.linalg.norm(embedding) * self._reach
        yield from (self._topics[topic] for topic in np.argsort(-expected).tolist())

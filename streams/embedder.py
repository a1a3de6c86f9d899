"""Item embeddings for every registered bundle version."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from headwater.bundle import Bundle
from headwater.errors import BundleError, BundleRefused
from headwater.events import Item, now_ms
from headwater.features import encode_items
from headwater.generations import Generations
from headwater.item_embedding import ItemEmbedding, embedding_key, encode_item_embedding
from headwater.names import ITEM_EMBEDDINGS
from streams.record import Outgoing

RETRY_S = 30.0
SETTLE_S = 2.0
"""Within this time every worker has read the registry again, and has loaded the bundle of a generation that is requested."""

Known = TypeVar("Known")
log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """Why a bundle cannot be loaded, and when that was tried, `time.monotonic`."""

    error: BundleError
    tried_s: float


class Embedder:
    """Keeps the bundles of all registered generations loaded and embeds items with each.

    Args:
        generations: The registry.
        model_dir: The model repository.

    Attributes:
        known: Whether the registry has been read: until then the versions to embed for are unknown.
        registered: Versions that items are embedded for, by every worker that could load their bundles.
        refused: Versions whose bundles cannot be loaded here, tried again every `RETRY_S`; a missing bundle at each refresh.
        missed: Versions whose bundles took longer than `SETTLE_S`, so that whoever builds the generation may not embed what was
            stored here meanwhile: since which epoch ms.
    """

    def __init__(self, generations: Generations, model_dir: Path) -> None:
        self.generations = generations
        self.known = False
        self.registered: list[str] = []
        self.refused: dict[str, Refusal] = {}
        self.missed: dict[str, int] = {}
        self._absent_since_ms: dict[str, int] = {}
        self._read_ms = 0
        self._model_dir = model_dir
        self._bundles: dict[str, Bundle] = {}
        self._refreshing = asyncio.Lock()

    @property
    def versions(self) -> list[str]:
        """Versions that items are embedded for here."""
        return list(self._bundles)

    async def refresh(self) -> None:
        """Load the bundles of newly registered generations, drop those of pruned ones.

        Raises:
            RedisError: the registry cannot be read now.
        """
        async with self._refreshing:
            begun_ms = now_ms()
            registered = await asyncio.to_thread(self.generations.all)
            former_ms, self._read_ms = self._read_ms if self.known else begun_ms, begun_ms
            wanted = {generation.version for generation in registered if generation.state not in ("failed", "pruned")}
            for version in sorted(wanted - set(self._bundles)):
                since_ms = self._absent_since_ms.setdefault(version, former_ms)
                await self._load(version)
                if version in self._bundles and now_ms() - since_ms > SETTLE_S * 1000:
                    self.missed[version] = since_ms
            self._absent_since_ms = _those_in(wanted - set(self._bundles), self._absent_since_ms)
            self._bundles = _those_in(wanted, self._bundles)
            self.refused, self.missed = _those_in(wanted, self.refused), _those_in(wanted, self.missed)
            self.registered = sorted(wanted)
            self.known = True

    async def _load(self, version: str) -> None:
        now_s, refused = time.monotonic(), self.refused.get(version)
        if refused and isinstance(refused.error, BundleRefused) and now_s - refused.tried_s < RETRY_S:
            return
        try:
            self._bundles[version] = await asyncio.to_thread(Bundle.load, self._model_dir / version)
            self.refused.pop(version, None)
        except BundleError as error:
            if refused is None or str(refused.error) != str(error):
                log.error("bundle refused: %s", error)
            self.refused[version] = Refusal(error, now_s)

    def embed(self, items: Sequence[Item], versions: Sequence[str] | None = None) -> list[Outgoing]:
        """Return the `item-embeddings` records of N items for each version."""
        records = []
        for version in self.versions if versions is None else versions:
            bundle = self._bundles.get(version)
            if bundle is None or not items:
                continue
            embeddings = bundle.item_tower.embed(encode_items(items, bundle.vocabulary))  # (N, D)
            for item, embedding in zip(items, embeddings, strict=True):
                value = encode_item_embedding(ItemEmbedding(item.item_id, item.topics, item.published_at, embedding))
                records.append(Outgoing(ITEM_EMBEDDINGS, embedding_key(version, item.item_id), value))
        return records


def _those_in(versions: Collection[str], known: Mapping[str, Known]) -> dict[str, Known]:
    return {version: what for version, what in known.items() if version in versions}


def tombstones(item_ids: Sequence[str], versions: Sequence[str]) -> list[Outgoing]:
    """Return the records that delete items' embeddings of some versions."""
    return [
        Outgoing(ITEM_EMBEDDINGS, embedding_key(version, item_id), None) for version in versions for item_id in item_ids
    ]

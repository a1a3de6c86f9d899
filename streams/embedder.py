"""Item embeddings for every registered bundle version."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from redis import RedisError

from headwater.bundle import Bundle
from headwater.errors import BundleError, UnknownGeneration
from headwater.events import Item
from headwater.features import encode_items
from headwater.generations import Generations
from headwater.item_embedding import ItemEmbedding, embedding_key, encode_item_embedding
from headwater.names import ITEM_EMBEDDINGS
from streams.record import Outgoing

log = logging.getLogger(__name__)


class Embedder:
    """Keeps the bundles of all registered generations loaded and embeds items with each.

    Args:
        generations: The register.
        model_dir: The model repository.
    """

    def __init__(self, generations: Generations, model_dir: Path) -> None:
        self.generations = generations
        self._model_dir = model_dir
        self._bundles: dict[str, Bundle] = {}

    @property
    def versions(self) -> list[str]:
        """Versions that items are embedded for."""
        return list(self._bundles)

    async def refresh(self) -> None:
        """Load the bundles of newly registered generations, drop those of pruned ones."""
        try:
            registered = await asyncio.to_thread(self.generations.all)
        except RedisError as error:
            log.warning("generations cannot be read: %s", error)
            return
        wanted = [generation.version for generation in registered if generation.state != "failed"]
        for version in wanted:
            if version not in self._bundles:
                await self._load(version)
        self._bundles = {version: bundle for version, bundle in self._bundles.items() if version in wanted}

    async def _load(self, version: str) -> None:
        try:
            self._bundles[version] = await asyncio.to_thread(Bundle.load, self._model_dir / version)
        except BundleError as refused:
            log.error("bundle refused: %s", refused)
            message = str(refused)
            failed = {"state": "failed", "error": message}
            try:
                await asyncio.to_thread(
                    self.generations.update, version, lambda generation: generation.model_copy(update=failed)
                )
            except UnknownGeneration:
                log.info("%s was pruned meanwhile", version)

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

    def tombstones(self, item_ids: Sequence[str]) -> list[Outgoing]:
        """Return the records that delete items from every version."""
        return [
            Outgoing(ITEM_EMBEDDINGS, embedding_key(version, item_id), None)
            for version in self.versions
            for item_id in item_ids
        ]

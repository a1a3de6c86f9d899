"""Builds a requested index generation by embedding all items, and deletes the embeddings of a pruned one."""

import asyncio
import logging
import time
from dataclasses import dataclass

from headwater.errors import BundleRefused, UnknownGeneration
from headwater.events import now_ms
from headwater.generations import Generation
from headwater.stores import FeatureStore
from headwater.stores.protocol import StoredItem
from streams.embedder import SETTLE_S, Embedder, tombstones
from streams.present_items import publish_present
from streams.publisher import Publisher

SILENT_MS = 10_000
"""A builder without a heartbeat for this long is taken for dead."""
RESCAN_MARGIN_MS = 5_000
"""Items are embedded again that were stored this long before they may have been missed, since clocks of workers differ."""
BATCH = 500

log = logging.getLogger(__name__)


class TakenOver(Exception):
    """Another worker is building this generation now."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Embeds the whole catalogue for requested generations, deletes the embeddings of pruned ones; one worker per generation.

    Attributes:
        worker: Name of this worker, unique.
    """

    worker: str
    store: FeatureStore
    publisher: Publisher
    embedder: Embedder

    async def run_pending(self) -> None:
        """Build every requested generation, and clear every pruned one, unless another worker is at work on it.

        Raises:
            RedisError, PublishFailed: the generation stays claimed; it is done again once its heartbeat is `SILENT_MS` old.
        """
        await self._embed_missed()
        try:
            for generation in await asyncio.to_thread(self.embedder.generations.all):
                if _is_free(generation):
                    await self._process(generation)
        except (UnknownGeneration, TakenOver) as ended:
            log.info("%s", ended)

    async def _embed_missed(self) -> None:
        """Embed what was stored here while a bundle was not there yet, after its generation was built elsewhere perhaps."""
        for version, since_ms in list(self.embedder.missed.items()):
            embedded = 0
            async for batch in self.store.catalogue(BATCH, since_ms - RESCAN_MARGIN_MS):
                await self._embed(version, batch)
                embedded += len(batch)
            self.embedder.missed.pop(version, None)
            log.info("%s: its bundle came late, so %d items of the meantime are embedded now", version, embedded)

    async def _process(self, generation: Generation) -> None:
        version = generation.version
        refused = self.embedder.refused.get(version)
        if generation.state == "pruned":
            await self._clear(version)
        elif version in self.embedder.versions:
            await self._build(version)
        elif refused and isinstance(
            refused.error, BundleRefused
        ):  # another worker may have a bundle that is missing here
            failed = {"state": "failed", "error": str(refused.error)}
            await asyncio.to_thread(
                self.embedder.generations.update,
                version,
                lambda known: known.model_copy(update=failed) if known.state == "requested" else known,
            )

    async def _build(self, version: str) -> None:
        # 1. Claim it.
        begun_s, begun_ms = time.monotonic(), now_ms()
        await self._claim(version, state="building", embedded=0)
        # 2. Embed the whole catalogue. Meanwhile every worker begins to embed new items for this version, too.
        total, embedded = await self.store.catalogue_size(), 0
        async for batch in self.store.catalogue(BATCH):
            await self._embed(version, batch)
            embedded += len(batch)
            await self._update(version, "building", embedded=embedded, items=max(total, embedded))
        await asyncio.sleep(begun_s + SETTLE_S - time.monotonic())
        # 3. Embed what was stored meanwhile: the worker that stored it may not have loaded the bundle yet.
        async for batch in self.store.catalogue(BATCH, begun_ms - RESCAN_MARGIN_MS):
            await self._embed(version, batch)
            await self._update(version, "building")
        # 4. Only now may it be verified.
        await self._update(version, "building", state="built")
        log.info("%s: %d items embedded", version, embedded)

    async def _embed(self, version: str, batch: list[StoredItem]) -> None:
        items = {stored.item.item_id: stored for stored in batch}
        await publish_present(self.store, self.publisher, self.embedder, [version], items)

    async def _clear(self, version: str) -> None:
        """Delete a pruned generation's embeddings: compaction keeps the newest record of each key for ever."""
        # 1. Claim it, and wait until no worker embeds items for this version any more.
        await self._claim(version)
        await asyncio.sleep(SETTLE_S)
        # 2. Tombstones for the whole catalogue; items that left it earlier got theirs then.
        async for batch in self.store.catalogue(BATCH):
            await self.publisher.publish(tombstones([stored.item.item_id for stored in batch], [version]))
            await self._update(version, "pruned")
        await asyncio.to_thread(self.embedder.generations.remove, version)
        log.info("%s: embeddings deleted", version)

    async def _claim(self, version: str, **changes: object) -> None:
        def claimed(generation: Generation) -> Generation:
            if not _is_free(generation):
                raise TakenOver(f"{generation.version} is being built by {generation.builder}")
            return generation.model_copy(update={**changes, "builder": self.worker, "heartbeat_ms": now_ms()})

        await asyncio.to_thread(self.embedder.generations.update, version, claimed)

    async def _update(self, version: str, claimed: str, **changes: object) -> None:
        def changed(generation: Generation) -> Generation:
            if (generation.builder, generation.state) != (self.worker, claimed):
                raise TakenOver(f"{version} is {generation.state} now, claimed by {generation.builder}")
            return generation.model_copy(update={**changes, "heartbeat_ms": now_ms()})

        await asyncio.to_thread(self.embedder.generations.update, version, changed)


def _is_free(generation: Generation) -> bool:
    silent = now_ms() - generation.heartbeat_ms > SILENT_MS
    return generation.state == "requested" or (generation.state in ("building", "pruned") and silent)

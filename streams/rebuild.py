"""All item embeddings anew, for a requested index generation, and away again, of a pruned one."""

import asyncio
import logging
import time
from dataclasses import dataclass

from headwater.errors import BundleRefused, UnknownGeneration
from headwater.events import now_ms
from headwater.generations import Generation
from headwater.stores import FeatureStore
from headwater.stores.protocol import StoredItem
from streams.embedder import Embedder, tombstones
from streams.publisher import Publisher

SILENT_MS = 10_000
SETTLE_S = 2.0
CLOCKS_APART_MS = 5_000
BATCH = 500

log = logging.getLogger(__name__)


class TakenOver(Exception):
    """Another worker builds this generation now."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Embeds the whole catalogue for generations that ask for it, deletes what pruned ones leave; one worker at a time.

    Attributes:
        worker: Name of this worker, unique.
    """

    worker: str
    store: FeatureStore
    publisher: Publisher
    embedder: Embedder

    async def run_pending(self) -> None:
        """Build every generation that is requested, clear every one that is pruned, unless another worker is at it.

        Raises:
            RedisError, PublishFailed: the worker that is at it stays so, and begins anew once it is silent for long.
        """
        try:
            for generation in await asyncio.to_thread(self.embedder.generations.all):
                if _is_free(generation):
                    await self._carry_out(generation)
        except (UnknownGeneration, TakenOver) as ended:
            log.info("%s", ended)

    async def _carry_out(self, generation: Generation) -> None:
        version = generation.version
        refused = self.embedder.refused.get(version)
        if generation.state == "pruned":
            await self._clear(version)
        elif version in self.embedder.versions:
            await self._build(version)
        elif refused and isinstance(refused.error, BundleRefused):  # one that is not here, another worker may have
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
        # 2. Embed everything the catalogue holds. By the end every worker embeds new items for this version, too.
        total, embedded = await self.store.catalogue_size(), 0
        async for batch in self.store.catalogue(BATCH):
            await self._embed(version, batch)
            embedded += len(batch)
            await self._tell(version, "building", embedded=embedded, items=max(total, embedded))
        await asyncio.sleep(begun_s + SETTLE_S - time.monotonic())
        # 3. Embed what was stored meanwhile, perhaps by a worker that had not loaded the bundle yet.
        async for batch in self.store.catalogue(BATCH, begun_ms - CLOCKS_APART_MS):
            await self._embed(version, batch)
            await self._tell(version, "building")
        # 4. Only now may it be verified.
        await self._tell(version, "building", state="built")
        log.info("%s: %d items embedded", version, embedded)

    async def _embed(self, version: str, batch: list[StoredItem]) -> None:
        records = await asyncio.to_thread(self.embedder.embed, [stored.item for stored in batch], [version])
        await self.publisher.publish(records)
        await self._correct(version, batch)

    async def _clear(self, version: str) -> None:
        """Delete a pruned generation's embeddings: compaction keeps the newest record of each key for ever."""
        # 1. Claim it, and wait until no worker embeds items for this version any more.
        await self._claim(version)
        await asyncio.sleep(SETTLE_S)
        # 2. Tombstones for everything the catalogue holds; those of items that went before were published then.
        async for batch in self.store.catalogue(BATCH):
            await self.publisher.publish(tombstones([stored.item.item_id for stored in batch], [version]))
            await self._tell(version, "pruned")
        await asyncio.to_thread(self.embedder.generations.remove, version)
        log.info("%s: embeddings deleted", version)

    async def _claim(self, version: str, **changes: object) -> None:
        def claimed(generation: Generation) -> Generation:
            if not _is_free(generation):
                raise TakenOver(f"{generation.version} is in the hands of {generation.builder}")
            return generation.model_copy(update={**changes, "builder": self.worker, "heartbeat_ms": now_ms()})

        await asyncio.to_thread(self.embedder.generations.update, version, claimed)

    async def _tell(self, version: str, claimed: str, **changes: object) -> None:
        def told(generation: Generation) -> Generation:
            if (generation.builder, generation.state) != (self.worker, claimed):
                raise TakenOver(f"{version} is {generation.state} now, in the hands of {generation.builder}")
            return generation.model_copy(update={**changes, "heartbeat_ms": now_ms()})

        await asyncio.to_thread(self.embedder.generations.update, version, told)

    async def _correct(self, version: str, published: list[StoredItem]) -> None:
        """Publish again what changed between reading the catalogue and publishing.

        An item that changes after this look is published by the item agent, later than here.
        """
        item_ids = [stored.item.item_id for stored in published]
        current = await self.store.items(item_ids)
        changed = [
            now.item for before, now in zip(published, current, strict=True) if now is not None and now != before
        ]
        gone = [item_id for item_id, now in zip(item_ids, current, strict=True) if now is None]
        corrections = self.embedder.embed(changed, [version]) + tombstones(gone, [version])
        if corrections:
            await self.publisher.publish(corrections)


def _is_free(generation: Generation) -> bool:
    silent = now_ms() - generation.heartbeat_ms > SILENT_MS
    return generation.state == "requested" or (generation.state in ("building", "pruned") and silent)

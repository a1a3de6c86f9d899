"""All item embeddings anew, for a requested index generation."""

import asyncio
import logging
import time
from dataclasses import dataclass

from redis import RedisError

from headwater.errors import UnknownGeneration
from headwater.generations import Generation
from headwater.stores import FeatureStore
from headwater.stores.protocol import StoredItem
from streams.embedder import Embedder
from streams.publisher import Publisher, PublishFailed

SILENT_MS = 10_000
SETTLE_S = 2.0
BATCH = 500

log = logging.getLogger(__name__)


class TakenOver(Exception):
    """Another worker builds this generation now."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Embeds the whole catalogue for generations that ask for it; one worker at a time does it.

    Attributes:
        worker: Name of this worker, unique.
    """

    worker: str
    store: FeatureStore
    publisher: Publisher
    embedder: Embedder

    async def run_pending(self) -> None:
        """Build every generation that is requested, or whose builder gave no sign of life for `SILENT_MS`."""
        try:
            registered = await asyncio.to_thread(self.embedder.generations.all)
            for generation in registered:
                if _is_free(generation):
                    await self._build(generation.version)
        except (UnknownGeneration, TakenOver) as ended:
            log.info("%s", ended)
        except (RedisError, PublishFailed) as error:
            log.warning("rebuild waits: %s", error)

    async def _build(self, version: str) -> None:
        # 1. Claim it, and wait until every worker embeds new items for this version too.
        await asyncio.to_thread(self.embedder.generations.update, version, self._claim)
        await self.embedder.refresh()
        await asyncio.sleep(SETTLE_S)
        if version not in self.embedder.versions:
            return
        # 2. Embed everything the catalogue holds; what arrives meanwhile comes through the item agent.
        total, embedded = await self.store.catalogue_size(), 0
        async for batch in self.store.catalogue(BATCH):
            items = [stored.item for stored in batch]
            records = await asyncio.to_thread(self.embedder.embed, items, [version])
            await self.publisher.publish(records)
            await self._correct(version, batch)
            embedded += len(items)
            await self._tell(version, embedded=embedded, items=max(total, embedded))
        # 3. Only now may it be verified.
        await self._tell(version, state="built")
        log.info("%s: %d items embedded", version, embedded)

    def _claim(self, generation: Generation) -> Generation:
        if not _is_free(generation):
            raise TakenOver(f"{generation.version} is built by {generation.builder}")
        claimed = {"state": "building", "builder": self.worker, "beat_ms": _now_ms(), "embedded": 0}
        return generation.model_copy(update=claimed)

    async def _tell(self, version: str, **changes: object) -> None:
        def told(generation: Generation) -> Generation:
            if generation.builder != self.worker:
                raise TakenOver(f"{version} was taken over by {generation.builder}")
            return generation.model_copy(update={**changes, "beat_ms": _now_ms()})

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
        corrections = self.embedder.embed(changed, [version]) + self.embedder.tombstones(gone)
        if corrections:
            await self.publisher.publish(corrections)


def _is_free(generation: Generation) -> bool:
    silent = _now_ms() - generation.beat_ms > SILENT_MS
    return generation.state == "requested" or (generation.state == "building" and silent)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

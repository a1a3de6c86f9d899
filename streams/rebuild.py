"""All item embeddings anew, for a requested index generation."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import LockError, RedisError

from headwater.errors import UnknownGeneration
from headwater.generations import Generation
from headwater.names import Names
from headwater.stores import FeatureStore
from headwater.stores.protocol import StoredItem
from streams.embedder import Embedder
from streams.publisher import Publisher, PublishFailed

LOCK_TTL_S = 10.0
SETTLE_S = 2.0
BATCH = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Embeds the whole catalogue for generations that ask for it; one worker at a time does it."""

    redis: Redis
    names: Names
    store: FeatureStore
    publisher: Publisher
    embedder: Embedder

    async def run_pending(self) -> None:
        """Build every generation that is requested, or that a worker left unfinished."""
        try:
            registered = await asyncio.to_thread(self.embedder.generations.all)
            for generation in registered:
                if generation.state in ("requested", "building"):
                    await self._build_locked(generation.version)
        except (RedisError, PublishFailed) as error:
            log.warning("rebuild waits: %s", error)

    async def _build_locked(self, version: str) -> None:
        lock = self.redis.lock(self.names.rebuild_lock(version), timeout=LOCK_TTL_S, blocking=False)
        if not await lock.acquire():
            return
        try:
            await self._build(version, lock.reacquire)
        except UnknownGeneration as pruned:
            log.info("%s", pruned)
        except LockError:
            log.warning("%s: another worker took over", version)
        finally:
            if await lock.owned():
                await lock.release()

    async def _build(self, version: str, keep_lock: Callable[[], Awaitable[object]]) -> None:
        # 1. Announce, and wait until every worker embeds new items for this version too.
        total = await self.store.catalogue_size()
        await self._update(version, state="building", embedded=0, items=total)
        await self.embedder.refresh()
        await asyncio.sleep(SETTLE_S)
        if version not in self.embedder.versions:
            return
        # 2. Embed everything the catalogue holds; what arrives meanwhile comes through the item agent.
        embedded = 0
        async for batch in self.store.catalogue(BATCH):
            items = [stored.item for stored in batch]
            records = await asyncio.to_thread(self.embedder.embed, items, [version])
            await self.publisher.publish(records)
            await self._correct(version, batch)
            embedded += len(items)
            await keep_lock()
            await self._update(version, embedded=embedded, items=max(total, embedded))
        # 3. Only now may it be verified.
        await self._update(version, state="built")
        log.info("%s: %d items embedded", version, embedded)

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

    async def _update(self, version: str, **changes: object) -> Generation:
        return await asyncio.to_thread(
            self.embedder.generations.update, version, lambda generation: generation.model_copy(update=changes)
        )

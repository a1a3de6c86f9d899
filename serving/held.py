"""The index generations a server holds, and which of them answers."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import RedisError

from headwater.activity import ItemActivity
from headwater.bundle import Bundle
from headwater.errors import BundleError, NoLiveGeneration, UnknownGeneration
from headwater.generations import Generations
from headwater.index import ItemIndex
from headwater.index.snapshot import read_newest_snapshot, remove_snapshots, write_snapshot

POLL_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A user tower and the index generation of the same version; a query uses exactly one pair."""

    bundle: Bundle
    index: ItemIndex

    @property
    def version(self) -> str:
        return self.bundle.version


@dataclass
class HeldGenerations:
    """Follows the register: holds a pair for each generation and swaps the live one as the alias moves.

    Attributes:
        generations: The register on Redis.
        model_dir: The model repository.
        snapshot_dir: This server's snapshots.
        on_first: Told of an index that knows no item activity yet.
        writing: Held by whoever changes an index; queries need no lock, they share the event loop.
    """

    generations: Generations
    model_dir: Path
    snapshot_dir: Path
    on_first: Callable[[ItemIndex], None] = lambda index: None
    pairs: dict[str, Pair] = field(default_factory=dict)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: str | None = None
    _polling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _live: Pair | None = None
    _refused: set[str] = field(default_factory=set)

    @property
    def live(self) -> Pair:
        """Return the pair that answers now.

        Raises:
            NoLiveGeneration: nothing is promoted, or this server does not hold it yet.
        """
        if self._live is None:
            raise NoLiveGeneration(
                f"generation {self.wanted} is being loaded"
                if self.wanted
                else "no index generation is live yet: `headwater train --once` makes the first"
            )
        return self._live

    def pair(self, version: str) -> Pair:
        """Return a held pair.

        Raises:
            UnknownGeneration: this server does not hold it.
        """
        if version not in self.pairs:
            raise UnknownGeneration(f"this server holds no generation {version!r}")
        return self.pairs[version]

    async def restore(self) -> dict[int, int]:
        """Load every registered generation, from snapshots where there are any.

        Returns:
            Partition to the offset of `item-embeddings` from which all of them are complete.
        """
        applied: list[Mapping[int, int]] = []
        for generation in await asyncio.to_thread(self.generations.all):
            snapshot = await asyncio.to_thread(read_newest_snapshot, self.snapshot_dir, generation.version)
            if snapshot is None:
                applied.append({})
                continue
            index, offsets = snapshot
            if await self._hold(generation.version, index):
                applied.append(offsets)
                log.info("%s: %d items from a snapshot", generation.version, len(index))
        partitions = set.intersection(*(set(offsets) for offsets in applied)) if applied else set()
        return {partition: min(offsets[partition] for offsets in applied) for partition in partitions}

    async def poll(self) -> None:
        """Follow the register and the alias, if Redis is there; call it a few times a second."""
        try:
            await self.refresh()
        except RedisError as error:
            log.warning("generations cannot be read: %s", error)

    async def refresh(self) -> None:
        """Follow the register and the alias.

        Raises:
            RedisError: they cannot be read now.
        """
        registered = await asyncio.to_thread(self.generations.all)
        alias = await asyncio.to_thread(self.generations.alias)
        versions = {generation.version for generation in registered}
        async with self._polling:
            for version in versions - set(self.pairs) - self._refused:
                await self._hold(version, None)
        for version in set(self.pairs) - versions:
            if version != alias.version:
                del self.pairs[version]
                await asyncio.to_thread(remove_snapshots, self.snapshot_dir, version)
                log.info("%s: dropped", version)
        self._swap(alias.version)

    def _swap(self, version: str | None) -> None:
        if version != self.wanted and version not in self.pairs and version is not None:
            log.error("%s is promoted but not held here; answering with the previous one", version)
        self.wanted = version
        pair = self.pairs.get(version or "")
        if pair is not None and pair is not self._live:
            self._live = pair
            log.info("%s is live with %d items", pair.version, len(pair.index))

    async def _hold(self, version: str, index: ItemIndex | None) -> bool:
        try:
            bundle = await asyncio.to_thread(Bundle.load, self.model_dir / version)
        except BundleError as error:
            log.error("bundle refused: %s", error)
            self._refused.add(version)
            return False
        like = self._live.index if self._live else None
        index = index or ItemIndex(bundle.manifest.dimension, like)
        if like is None:
            self.on_first(index)
        self.pairs[version] = Pair(bundle, index)
        return True

    def set_activity(self, item_id: str, activity: ItemActivity) -> None:
        """Set an item's activity in every generation."""
        for pair in self.pairs.values():
            pair.index.set_activity(item_id, activity)

    async def snapshot(self, applied: Mapping[int, int]) -> None:
        """Write a snapshot of every generation; inserts wait meanwhile, queries do not."""
        async with self.writing:
            offsets = dict(applied)
            for version, pair in list(self.pairs.items()):
                if len(pair.index):
                    await asyncio.to_thread(write_snapshot, self.snapshot_dir, version, pair.index, offsets)

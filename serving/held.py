"""The index generations a server holds, and which of them answers."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import RedisError

from headwater.activity import ItemActivity
from headwater.bundle import Bundle
from headwater.errors import BundleError, BundleNotFound, BundleRefused, NoLiveGeneration, UnknownGeneration
from headwater.generations import Alias, Generation, Generations
from headwater.index import ItemIndex
from headwater.index.snapshot import read_newest_snapshot, remove_leavings, remove_snapshots, write_snapshot
from streams.follower import Start

POLL_S = 0.2
RETRY_S = 30.0
CLOCKS_APART_MS = 600_000

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
        passed_over: When the newest embedding was appended that came for a version not held, epoch ms.
    """

    generations: Generations
    model_dir: Path
    snapshot_dir: Path
    on_first: Callable[[ItemIndex], None] = lambda index: None
    pairs: dict[str, Pair] = field(default_factory=dict)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    passed_over: dict[str, int] = field(default_factory=dict)
    wanted: str | None = None
    _polling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _live: Pair | None = None
    _refused: dict[str, tuple[float, str]] = field(default_factory=dict)
    _trouble: str | None = None

    @property
    def live(self) -> Pair:
        """Return the pair that answers now.

        Raises:
            NoLiveGeneration: nothing is promoted, or this server does not hold it yet.
        """
        if self._live is None:
            raise NoLiveGeneration(
                f"generation {self.wanted} {self._why_not_held(self.wanted)}"
                if self.wanted
                else "no index generation is live yet: `headwater train --once` makes the first"
            )
        return self._live

    @property
    def astray(self) -> str | None:
        """Return why another generation answers than the one that is promoted, None where it is that one."""
        if self._live is None or self.wanted in (None, self._live.version):
            return None
        why = self._why_not_held(self.wanted)
        return f"generation {self.wanted} {why}; this server answers with {self._live.version}"

    def _why_not_held(self, version: str) -> str:
        return f"cannot be held here: {self._refused[version][1]}" if version in self._refused else "is being loaded"

    def pair(self, version: str) -> Pair:
        """Return a held pair.

        Raises:
            UnknownGeneration: this server does not hold it.
        """
        if version not in self.pairs:
            raise UnknownGeneration(f"this server holds no generation {version!r}")
        return self.pairs[version]

    async def restore(self) -> Start:
        """Load every registered generation, from snapshots where there are any.

        Returns:
            From where on `item-embeddings` makes all of them complete: the offsets that not all snapshots contain, and
            when the earliest generation without one was requested.
        """
        registered = [each for each in await asyncio.to_thread(self.generations.all) if _has_embeddings(each)]
        if registered:  # a register that is lost for a while takes no snapshots with it
            await asyncio.to_thread(remove_leavings, self.snapshot_dir, {each.version for each in registered})
        applied: list[Mapping[int, int]] = []
        since_ms: list[int] = []
        for generation in registered:
            snapshot = await asyncio.to_thread(read_newest_snapshot, self.snapshot_dir, generation.version)
            index, offsets = snapshot or (None, {})
            if not await self._hold(generation, index):
                # What there is of it is not read: held later, it would lack that.
                self.passed_over[generation.version] = generation.requested_ms
                continue
            if index is None:
                since_ms.append(max(0, generation.requested_ms - CLOCKS_APART_MS))
            else:
                applied.append(offsets)
                log.info("%s: %d items from a snapshot", generation.version, len(index))
        partitions = set.intersection(*(set(offsets) for offsets in applied)) if applied else set()
        earliest = {partition: min(offsets[partition] for offsets in applied) for partition in partitions}
        return Start(earliest if applied else None, min(since_ms, default=None))

    async def poll(self) -> None:
        """Follow the register and the alias, if Redis is there; call it a few times a second."""
        try:
            await self.refresh()
        except RedisError as error:
            self._complain(f"generations cannot be read: {error}")

    async def refresh(self) -> None:
        """Follow the register and the alias.

        Raises:
            RedisError: they cannot be read now.
        """
        async with self._polling:
            registered = await asyncio.to_thread(self.generations.all)
            alias = await asyncio.to_thread(self.generations.alias)
            if not registered and self.pairs:
                self._complain("the register of generations is empty: has Redis lost its data? What is held here stays")
                return
            self._complain(None)
            for generation in registered:
                if generation.version not in self.pairs and _has_embeddings(generation):
                    await self._hold(generation, None)
            self._swap(alias)
            kept = {generation.version for generation in registered if generation.state != "pruned"}
            for version in set(self.pairs) - kept:
                if self.pairs[version] is not self._live:
                    del self.pairs[version]
                    async with self.writing:
                        await asyncio.to_thread(remove_snapshots, self.snapshot_dir, version)
                    log.info("%s: dropped", version)

    def _complain(self, trouble: str | None) -> None:
        """Log what is wrong with the register when it begins and when it ends, not each time it is looked at."""
        if trouble == self._trouble:
            return
        if trouble:
            log.error(trouble)
        else:
            log.info("the register of generations is there again")
        self._trouble = trouble

    def _swap(self, alias: Alias) -> None:
        changed, self.wanted = alias.version != self.wanted, alias.version
        pair = self.pairs.get(alias.version or "")
        if pair is None and self._live is None:  # after a restart: what answered before is better than nothing
            pair = self.pairs.get(alias.previous or "")
        if pair is not None and pair is not self._live:
            self._live = pair
            log.info("%s answers with %d items", pair.version, len(pair.index))
        if changed and self.astray:
            log.error(self.astray)

    async def _hold(self, generation: Generation, index: ItemIndex | None) -> bool:
        version, now_s = generation.version, time.monotonic()
        if version in self._refused and now_s < self._refused[version][0]:
            return False
        try:
            bundle = await asyncio.to_thread(Bundle.load, self.model_dir / version)
            if index is None and self.passed_over.get(version, -1) >= generation.requested_ms:
                raise BundleRefused(f"{version}: embeddings came before it could be held; restart this server")
        except BundleError as error:
            if self._refused.get(version, (0.0, ""))[1] != str(error):
                log.error("bundle refused: %s", error)
            # What is not here may appear at any time; what is refused has to be read as a whole to be looked at again.
            self._refused[version] = now_s + (0.0 if isinstance(error, BundleNotFound) else RETRY_S), str(error)
            return False
        self._refused.pop(version, None)
        like = self._live.index if self._live else None
        index = ItemIndex(bundle.manifest.dimension, like, version) if index is None else index
        if like is None:
            self.on_first(index)
        self.pairs[version] = Pair(bundle, index)
        return True

    def set_activity(self, item_id: str, activity: ItemActivity) -> None:
        """Set an item's activity in every generation."""
        for pair in self.pairs.values():
            pair.index.set_activity(item_id, activity)

    async def snapshot(self, applied: Mapping[int, int]) -> None:
        """Write a snapshot of every generation; inserts wait meanwhile, queries only while hnswlib writes its graph."""
        async with self.writing:
            offsets = dict(applied)
            for version, pair in list(self.pairs.items()):
                if len(pair.index):
                    await asyncio.to_thread(write_snapshot, self.snapshot_dir, version, pair.index, offsets)


def _has_embeddings(generation: Generation) -> bool:
    return generation.state not in ("failed", "pruned")

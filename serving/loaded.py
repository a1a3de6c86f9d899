"""The index generations that a server has loaded, and which of them answers."""

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
REQUEST_MARGIN_MS = 600_000
"""Embeddings are read from this long before their generation was requested, since clocks of machines differ."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingPair:
    """A user tower and the index generation of the same version; a query uses exactly one pair."""

    bundle: Bundle
    index: ItemIndex

    @property
    def version(self) -> str:
        return self.bundle.version


@dataclass
class LoadedGenerations:
    """Follows the registry: loads a pair for each generation and swaps the live one as the alias moves.

    Attributes:
        generations: The registry on Redis.
        model_dir: The model repository.
        snapshot_dir: This server's snapshots.
        initialise: Called with a new index that has no item activity yet.
        pairs: Version to loaded pair.
        writing: Locked while an index is changed; queries need no lock, since they share the event loop.
        skipped_ms: Version to append time of the newest embedding skipped because the version was not loaded, epoch ms.
        wanted: The promoted version, whether or not it is loaded.
    """

    generations: Generations
    model_dir: Path
    snapshot_dir: Path
    initialise: Callable[[ItemIndex], None] = lambda index: None
    pairs: dict[str, ServingPair] = field(default_factory=dict)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    skipped_ms: dict[str, int] = field(default_factory=dict)
    wanted: str | None = None
    _polling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _live: ServingPair | None = None
    _refused: dict[str, tuple[float, str]] = field(default_factory=dict)
    _problem: str | None = None

    @property
    def live(self) -> ServingPair:
        """Return the pair that answers now.

        Raises:
            NoLiveGeneration: nothing is promoted, or this server has not loaded it yet.
        """
        if self._live is None:
            raise NoLiveGeneration(
                f"generation {self.wanted} {self._why_not_loaded(self.wanted)}"
                if self.wanted
                else "no index generation is live yet: `headwater train --once` makes the first"
            )
        return self._live

    @property
    def fallback_reason(self) -> str | None:
        """Why this server answers with another generation than the promoted one; None if it does not."""
        if self._live is None or self.wanted in (None, self._live.version):
            return None
        why = self._why_not_loaded(self.wanted)
        return f"generation {self.wanted} {why}; this server answers with {self._live.version}"

    def _why_not_loaded(self, version: str) -> str:
        return f"cannot be loaded here: {self._refused[version][1]}" if version in self._refused else "is being loaded"

    def pair(self, version: str) -> ServingPair:
        """Return a loaded pair.

        Raises:
            UnknownGeneration: this server has not loaded it.
        """
        if version not in self.pairs:
            why = f": {self._refused[version][1]}" if version in self._refused else ""
            raise UnknownGeneration(f"this server has not loaded generation {version!r}{why}")
        return self.pairs[version]

    async def restore(self) -> Start:
        """Load every registered generation, from snapshots where there are any.

        Returns:
            Where to start reading `item-embeddings` so that all of them become complete: the first offsets that not all
            snapshots contain, and when the earliest generation without a snapshot was requested.
        """
        registered = [each for each in await asyncio.to_thread(self.generations.all) if _has_embeddings(each)]
        if registered:  # an empty registry may be a lost one: keep the snapshots
            await asyncio.to_thread(remove_leavings, self.snapshot_dir, {each.version for each in registered})
        applied: list[Mapping[int, int]] = []
        since_ms: list[int] = []
        for generation in registered:
            snapshot = await asyncio.to_thread(read_newest_snapshot, self.snapshot_dir, generation.version)
            index, offsets = snapshot or (None, {})
            if not await self._load(generation, index):
                # Its existing embeddings will not be read, so it must not be loaded later without them.
                self.skipped_ms[generation.version] = generation.requested_ms
                continue
            if index is None:
                since_ms.append(max(0, generation.requested_ms - REQUEST_MARGIN_MS))
            else:
                applied.append(offsets)
                log.info("%s: %d items from a snapshot", generation.version, len(index))
        partitions = set.intersection(*(set(offsets) for offsets in applied)) if applied else set()
        earliest = {partition: min(offsets[partition] for offsets in applied) for partition in partitions}
        return Start(earliest if applied else None, min(since_ms, default=None))

    async def poll(self) -> None:
        """Follow the registry and the alias, if Redis is available; call it a few times a second."""
        try:
            await self.refresh()
        except RedisError as error:
            self._complain(f"generations cannot be read: {error}")

    async def refresh(self) -> None:
        """Follow the registry and the alias.

        Raises:
            RedisError: they cannot be read now.
        """
        async with self._polling:
            registered = await asyncio.to_thread(self.generations.all)
            alias = await asyncio.to_thread(self.generations.alias)
            if not registered and self.pairs:
                self._complain(
                    "the generation registry is empty (has Redis lost its data?); keeping the loaded generations"
                )
                return
            self._complain(None)
            for generation in registered:
                if generation.version not in self.pairs and _has_embeddings(generation):
                    await self._load(generation, None)
            self._swap(alias)
            kept = {generation.version for generation in registered if generation.state != "pruned"}
            for version in set(self.pairs) - kept:
                if self.pairs[version] is not self._live:
                    del self.pairs[version]
                    async with self.writing:
                        await asyncio.to_thread(remove_snapshots, self.snapshot_dir, version)
                    log.info("%s: dropped", version)

    def _complain(self, problem: str | None) -> None:
        """Log a problem with the registry when it begins and when it ends, not at each poll."""
        if problem == self._problem:
            return
        if problem:
            log.error(problem)
        else:
            log.info("the generation registry is readable again")
        self._problem = problem

    def _swap(self, alias: Alias) -> None:
        changed, self.wanted = alias.version != self.wanted, alias.version
        pair = self.pairs.get(alias.version or "")
        if pair is None and self._live is None:  # after a restart: the previous generation is better than none
            pair = self.pairs.get(alias.previous or "")
        if pair is not None and pair is not self._live:
            self._live = pair
            log.info("%s answers with %d items", pair.version, len(pair.index))
        if changed and self.fallback_reason:
            log.error(self.fallback_reason)

    async def _load(self, generation: Generation, index: ItemIndex | None) -> bool:
        version, now_s = generation.version, time.monotonic()
        if version in self._refused and now_s < self._refused[version][0]:
            return False
        try:
            bundle = await asyncio.to_thread(Bundle.load, self.model_dir / version)
            if index is None and self.skipped_ms.get(version, -1) >= generation.requested_ms:
                raise BundleRefused(
                    f"{version}: some of its embeddings were skipped before its bundle could be loaded; "
                    "restart this server to read them"
                )
        except BundleError as error:
            if self._refused.get(version, (0.0, ""))[1] != str(error):
                log.error("bundle refused: %s", error)
            # A missing bundle may appear at any time, and looking is cheap; checking a refused one again means reading all of it.
            self._refused[version] = now_s + (0.0 if isinstance(error, BundleNotFound) else RETRY_S), str(error)
            return False
        self._refused.pop(version, None)
        like = self._live.index if self._live else None
        index = ItemIndex(bundle.manifest.dimension, like, version) if index is None else index
        if like is None:
            self.initialise(index)
        self.pairs[version] = ServingPair(bundle, index)
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

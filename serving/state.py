"""The state of one server process, and its background work."""

import asyncio
import gc
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from redis import Redis as SyncRedis

from headwater.covisit_features import RETENTION_MS
from headwater.errors import HeadwaterError
from headwater.generations import Generations
from headwater.names import ITEM_ACTIVITY, ITEM_EMBEDDINGS, ITEM_SUCCESSIONS
from headwater.producer import EngagementProducer
from headwater.settings import Settings
from headwater.stores import FeatureStore, RedisFeatureStore
from serving.batching import Batcher
from serving.clock import Clock
from serving.followed import Followed
from serving.loaded import POLL_S, LoadedGenerations
from serving.metrics import Metrics
from serving.responder import Responder
from serving.retrieval import Filters, Retrieval
from streams.follower import Start, end_offsets, latest_ends, make_follower, make_responder, set_start
from streams.hosting import alive, end_process_with, running, running_with_restarts

LEARN_EVERY_S = 1.0
FORGET_EVERY_S = 60.0
FREEZE_EVERY_S = 10.0
THAW_EVERY_S = 6 * 3600.0

log = logging.getLogger(__name__)


@dataclass
class State:
    """What routes use.

    Attributes:
        following, responding: Return whether the Faust app that follows Kafka, or answers `candidate-requests`, is running.
    """

    settings: Settings
    store: FeatureStore
    loaded: LoadedGenerations
    followed: Followed
    retrieval: Retrieval
    batcher: Batcher
    metrics: Metrics
    producer: EngagementProducer
    in_flight: int = 0
    following: Callable[[], bool] = lambda: False
    responding: Callable[[], bool] = lambda: False

    def not_ready(self) -> str | None:
        """Return why this server should get no queries, None when it should."""
        if not self.following():
            return "the Kafka follower has stopped, so this index is going stale; see the log"
        if self.followed.to_go:
            return f"catching up with Kafka: {self.followed.to_go} records left"
        try:
            return self.loaded.fallback_reason if self.loaded.live else None
        except HeadwaterError as error:
            return str(error)


def instance_name(settings: Settings) -> str:
    """Return the name under which this server keeps its snapshots."""
    return f"{socket.gethostname()}-{settings.serving_port}"


@asynccontextmanager
async def running_state(settings: Settings) -> AsyncIterator[State]:
    """Restore, follow, answer; stop everything on exit.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    store = RedisFeatureStore.of(settings)
    generations = Generations(SyncRedis.from_url(settings.redis_url.get_secret_value()), settings.names)
    metrics, clock = Metrics(), Clock(settings.clock)
    snapshot_dir = settings.state_dir / "snapshots" / instance_name(settings)
    loaded = LoadedGenerations(generations, settings.model_dir, snapshot_dir)
    followed = Followed(loaded, clock, metrics)
    loaded.initialise = followed.fill
    retrieval = Retrieval(loaded, store, followed.covisits, clock)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        producer = await asyncio.to_thread(EngagementProducer, settings)
        stack.push_async_callback(asyncio.to_thread, _close_quietly, producer)
        state = State(settings, store, loaded, followed, retrieval, Batcher(retrieval), metrics, producer)
        await _start(state, stack)
        yield state


async def _start(state: State, stack: AsyncExitStack) -> None:
    settings, loaded, followed = state.settings, state.loaded, state.followed
    # 1. Item activity: frames from the present end of the log, then what Redis stores; the newer by offset wins.
    # Successions: counted from scratch, from all that Kafka keeps.
    # 2. Embeddings: from where the snapshots end. 3. Ready once the present ends of all three topics are reached.
    ends, begin = await asyncio.gather(asyncio.to_thread(end_offsets, settings), loaded.restore())
    # A group of its own for each start: in the former one a killed server may still be a member.
    follower_id = f"{instance_name(settings)}-{uuid.uuid4().hex[:8]}"
    group = settings.names.serving_group(follower_id)
    starts = {ITEM_EMBEDDINGS: begin, ITEM_ACTIVITY: Start(ends[ITEM_ACTIVITY]), ITEM_SUCCESSIONS: Start()}
    begins = await asyncio.to_thread(set_start, settings, group, starts)
    followed.applied, followed.targets = begins[ITEM_EMBEDDINGS], ends[ITEM_EMBEDDINGS]
    followed.unread = {
        (settings.names.topic(name), partition): range(offset, ends[name].get(partition, 0))
        for name in (ITEM_ACTIVITY, ITEM_SUCCESSIONS)
        for partition, offset in begins[name].items()
    }
    await followed.load_activity(state.store)
    await loaded.poll()
    follower = make_follower(
        settings, follower_id, followed.on_embeddings, followed.on_activity, followed.on_successions
    )
    await stack.enter_async_context(running(follower))
    state.following = partial(alive, follower)
    followed.ends = partial(latest_ends, follower, settings.names.topic(ITEM_EMBEDDINGS))
    # Started in the background: queries need no responder, and its group may wait for a killed member.
    filters = Filters(max_age_ms=settings.max_item_age_s * 1000 or None)
    state.responding = await stack.enter_async_context(
        running_with_restarts(
            lambda: make_responder(settings, lambda publisher: Responder(state.retrieval, publisher, filters).apply)
        )
    )
    gc.freeze()  # all that is loaded now is long-lived
    for work in (
        _repeated(loaded.poll, POLL_S),
        _repeated(lambda: loaded.snapshot(followed.applied), settings.snapshot_every_s),
        _repeated(followed.learn_cells, LEARN_EVERY_S),
        _repeated(lambda: _forget(state), FORGET_EVERY_S),
        _repeated(_freeze, FREEZE_EVERY_S),
        _repeated(_thaw, THAW_EVERY_S),
        end_process_with(follower),
    ):
        task = asyncio.create_task(work)
        stack.callback(task.cancel)


async def _forget(state: State) -> None:
    await state.followed.forget_activity(state.retrieval.clock.now_ms() - state.settings.item_ttl_s * 1000)
    state.followed.covisits.forget(state.retrieval.clock.now_ms() - RETENTION_MS)


async def _freeze() -> None:
    """Keep long-lived objects out of garbage collection: traversing an index stops every query for 100 ms."""
    gc.collect()
    gc.freeze()


async def _thaw() -> None:
    """Have the next collection traverse everything: of what was frozen, cycles that are garbage by now stay otherwise."""
    gc.unfreeze()


async def _repeated(work: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await work()
        except Exception:
            log.exception("background work failed; it is tried again in %g s", every_s)


def _close_quietly(producer: EngagementProducer) -> None:
    try:
        producer.close()
    except HeadwaterError as error:
        log.error("on closing: %s", error)

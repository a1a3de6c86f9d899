"""The registry of index generations, and the alias that points at the live one.

A generation is all item embeddings of one bundle version. It is requested, embedded by the stream workers (built), verified
against a running server, promoted, and pruned in the end: the stream workers then delete its embeddings from Kafka, and after
that its entry. The alias moves by compare-and-set on its revision.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis
from redis.client import Pipeline

from headwater.errors import AliasMoved, UnknownGeneration
from headwater.events import now_ms
from headwater.names import Names

State = Literal["requested", "building", "built", "failed", "pruned"]


class Generation(BaseModel):
    """A registered index generation.

    Attributes:
        state: How far the stream workers are.
        requested_ms: When it was asked for, wall clock; none of its embeddings is older. 0 where that is not known.
        embedded, items: Items embedded so far, of how many at the start of the build.
        builder: The stream worker that embeds the items, or deletes their embeddings.
        heartbeat_ms: Wall-clock time of its last heartbeat; stored as `beat_ms`.
        error: Why the build failed.
        verified: Whether the last verification passed, None before the first.
    """

    model_config = ConfigDict(populate_by_name=True)

    version: str
    state: State = "requested"
    requested_ms: int = 0
    embedded: int = 0
    items: int = 0
    builder: str | None = None
    heartbeat_ms: int = Field(default=0, validation_alias="beat_ms", serialization_alias="beat_ms")
    error: str | None = None
    verified: bool | None = None


class Alias(BaseModel):
    """Which generation is live.

    Attributes:
        version: The live bundle version, None before the first promotion.
        previous: Where `rollback` goes.
        revision: Grows by one with each move.
        promotions_paused: An operator rolled back; the trainer does not promote until an operator does. Stored as `held`.
    """

    model_config = ConfigDict(populate_by_name=True)

    version: str | None = None
    previous: str | None = None
    revision: int = 0
    promotions_paused: bool = Field(default=False, validation_alias="held", serialization_alias="held")


class Generations:
    """The registry on Redis; synchronous, since every call is one short round trip."""

    def __init__(self, redis: Redis, names: Names) -> None:
        self._redis = redis
        self._key = names.generations()
        self._alias_key = names.alias()

    def all(self) -> list[Generation]:
        """Return every registered generation, oldest version first."""
        values: Any = self._redis.hgetall(self._key)
        found = [Generation.model_validate_json(value) for value in values.values()]
        return sorted(found, key=lambda generation: generation.version)

    def get(self, version: str) -> Generation:
        """Return one generation.

        Raises:
            UnknownGeneration: it is not registered.
        """
        value: Any = self._redis.hget(self._key, version)
        if value is None:
            raise UnknownGeneration(f"no generation {version!r}: see `headwater index list`")
        return Generation.model_validate_json(value)

    def request(self, version: str) -> None:
        """Ask the stream workers to embed all items with this bundle, again if it was built before."""
        generation = Generation(version=version, requested_ms=now_ms())
        self._redis.hset(self._key, version, generation.model_dump_json(by_alias=True))

    def update(self, version: str, change: Callable[[Generation], Generation]) -> Generation:
        """Change one generation atomically and return it.

        Raises:
            UnknownGeneration: it is not registered (pruned meanwhile).
        """

        def apply(pipe: Pipeline) -> Any:
            value: Any = pipe.hget(self._key, version)
            if value is None:
                raise UnknownGeneration(f"generation {version!r} was pruned")
            changed = change(Generation.model_validate_json(value))
            pipe.multi()
            pipe.hset(self._key, version, changed.model_dump_json(by_alias=True))
            return changed

        result: Any = self._redis.transaction(apply, self._key, value_from_callable=True)
        return Generation.model_validate(result)

    def prune(self, version: str) -> bool:
        """Mark a generation as pruned unless it is live or the previous one; return False where it is.

        Servers drop it within a second. A version that is not registered needs no mark.
        """

        def apply(pipe: Pipeline) -> Any:
            alias = _alias(pipe.get(self._alias_key))
            value: Any = pipe.hget(self._key, version)
            pipe.multi()
            if version in (alias.version, alias.previous):
                return False
            if value is not None:
                pruned = Generation.model_validate_json(value).model_copy(update={"state": "pruned", "heartbeat_ms": 0})
                pipe.hset(self._key, version, pruned.model_dump_json(by_alias=True))
            return True

        return bool(self._redis.transaction(apply, self._key, self._alias_key, value_from_callable=True))

    def remove(self, version: str) -> None:
        """Remove a generation's entry from the registry."""
        self._redis.hdel(self._key, version)

    def alias(self) -> Alias:
        """Return what is live."""
        return _alias(self._redis.get(self._alias_key))

    def move_alias(self, expected: Alias, version: str, promotions_paused: bool = False) -> Alias:
        """Make `version` live if the alias is still as `expected`; return the new alias.

        Raises:
            AliasMoved: somebody else moved it meanwhile.
            UnknownGeneration: `version` was pruned meanwhile.
        """

        def apply(pipe: Pipeline) -> Any:
            current = _alias(pipe.get(self._alias_key))
            if current != expected:
                raise AliasMoved(f"{current.version} was promoted meanwhile; look again, then retry")
            value: Any = pipe.hget(self._key, version)
            if value is None or Generation.model_validate_json(value).state == "pruned":
                raise UnknownGeneration(f"generation {version!r} was pruned")
            previous = current.previous if version == current.version else current.version
            moved = Alias(
                version=version,
                previous=previous,
                revision=current.revision + 1,
                promotions_paused=promotions_paused,
            )
            pipe.multi()
            pipe.set(self._alias_key, moved.model_dump_json(by_alias=True))
            return moved

        result: Any = self._redis.transaction(apply, self._key, self._alias_key, value_from_callable=True)
        return Alias.model_validate(result)


def _alias(value: Any) -> Alias:
    return Alias() if value is None else Alias.model_validate_json(value)

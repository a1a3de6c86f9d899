"""The register of index generations and the alias that says which one answers.

A generation is all item embeddings of one bundle version. It is requested, embedded by the stream
workers (built), verified against a running server, promoted, and pruned in the end. The alias moves by
compare-and-set on its revision.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel
from redis import Redis
from redis.client import Pipeline

from headwater.errors import AliasMoved, UnknownGeneration
from headwater.names import Names

State = Literal["requested", "building", "built", "failed"]


class Generation(BaseModel):
    """A registered index generation.

    Attributes:
        state: How far the stream workers are.
        embedded, items: Items embedded so far, of how many at the start of the build.
        builder: The stream worker that embeds the items.
        beat_ms: Its last sign of life, wall clock.
        error: Why the build failed.
        verified: Whether the last verification passed, None before the first.
    """

    version: str
    state: State = "requested"
    embedded: int = 0
    items: int = 0
    builder: str | None = None
    beat_ms: int = 0
    error: str | None = None
    verified: bool | None = None


class Alias(BaseModel):
    """Which generation is live.

    Attributes:
        version: The live bundle version, None before the first promotion.
        previous: Where `rollback` goes.
        revision: Grows by one with each move.
    """

    version: str | None = None
    previous: str | None = None
    revision: int = 0


class Generations:
    """The register on Redis; synchronous, since every call is one short round trip."""

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
        self._put(Generation(version=version))

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
            pipe.hset(self._key, version, changed.model_dump_json())
            return changed

        result: Any = self._redis.transaction(apply, self._key, value_from_callable=True)
        return Generation.model_validate(result)

    def _put(self, generation: Generation) -> None:
        self._redis.hset(self._key, generation.version, generation.model_dump_json())

    def remove(self, version: str) -> None:
        """Take a generation off the register; servers drop it within a second."""
        self._redis.hdel(self._key, version)

    def alias(self) -> Alias:
        """Return what is live."""
        value: Any = self._redis.get(self._alias_key)
        return Alias() if value is None else Alias.model_validate_json(value)

    def move_alias(self, expected: Alias, version: str) -> Alias:
        """Make `version` live if the alias is still as `expected`; return the new alias.

        Raises:
            AliasMoved: somebody else moved it meanwhile.
        """

        def apply(pipe: Pipeline) -> Any:
            value: Any = pipe.get(self._alias_key)
            current = Alias() if value is None else Alias.model_validate_json(value)
            if current != expected:
                raise AliasMoved(f"{current.version} was promoted meanwhile; look again, then retry")
            moved = Alias(version=version, previous=current.version, revision=current.revision + 1)
            pipe.multi()
            pipe.set(self._alias_key, moved.model_dump_json())
            return moved

        result: Any = self._redis.transaction(apply, self._alias_key, value_from_callable=True)
        return Alias.model_validate(result)

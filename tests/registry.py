"""A registry of index generations without Redis."""

from dataclasses import dataclass, field

from redis import RedisError

from headwater.generations import Alias, Generation


@dataclass
class Registry:
    """Stands in for `headwater.generations.Generations` where it is only read.

    Attributes:
        versions: Built, requested at `requested_ms`.
        unavailable: Redis does not answer.
    """

    versions: list[str] = field(default_factory=list)
    live: str | None = None
    previous: str | None = None
    unavailable: bool = False
    pruned: list[str] = field(default_factory=list)
    requested_ms: int = 0

    def all(self) -> list[Generation]:
        if self.unavailable:
            raise RedisError("unavailable")
        built = [
            Generation(version=version, state="built", requested_ms=self.requested_ms) for version in self.versions
        ]
        return built + [Generation(version=version, state="pruned") for version in self.pruned]

    def get(self, version: str) -> Generation:
        return next(each for each in self.all() if each.version == version)

    def alias(self) -> Alias:
        return Alias(version=self.live, previous=self.previous)

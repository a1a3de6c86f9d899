"""Errors that name the address of a Redis or Kafka that cannot be used, and what to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import Redis, RedisError

from headwater.errors import ServiceUnavailable
from headwater.settings import Settings, without_secrets


@contextmanager
def redis_reachable(settings: Settings) -> Iterator[Callable[[], None]]:
    """Turn a lost or refusing Redis into `ServiceUnavailable` that names the address; yields a ping."""
    url = settings.redis_url.get_secret_value()
    try:
        yield lambda: _ping(url)
    except (RedisError, ValueError) as error:
        if isinstance(error, ValueError) and not isinstance(error, RedisError) and "Redis URL" not in str(error):
            raise
        raise ServiceUnavailable(
            f"Redis at {without_secrets(url)} cannot be used: {error}; check HEADWATER_REDIS_URL and that it runs"
        ) from None


def _ping(url: str) -> None:
    with Redis.from_url(url, socket_connect_timeout=5) as client:
        client.ping()


def kafka_unreachable(settings: Settings, error: Exception) -> ServiceUnavailable:
    """Return the error that names Kafka's address and what to do."""
    return ServiceUnavailable(
        f"Kafka at {settings.kafka_bootstrap_servers} cannot be used: {type(error).__name__} {error}; "
        "check HEADWATER_KAFKA_BOOTSTRAP_SERVERS and that it runs"
    )

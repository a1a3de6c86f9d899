"""Settings, read from `HEADWATER_*` environment variables at entry points only."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AnyHttpUrl, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from headwater.errors import UsageError
from headwater.names import DEFAULT_KEY_PREFIX, Names

DAY_S = 86_400
MAX_PORT = 65_535
EMBEDDED_API_VERSION = (2, 0)
"""What the embedded broker speaks, which knows no idempotent producers."""


class Settings(BaseSettings):
    """Everything an operator can set.

    Attributes:
        kafka_bootstrap_servers: Comma-separated host:port list.
        kafka_api_version: Protocol to speak, e.g. `2.0`; empty negotiates (the embedded broker needs `2.0`).
        kafka_security_protocol: As in Kafka clients.
        kafka_sasl_mechanism, kafka_sasl_username, kafka_sasl_password: For SASL.
        redis_url: `redis://` or `rediss://` address.
        namespace: Prefix of every Kafka topic and Redis key, so that installations can share services.
        model_dir: The model repository.
        state_dir: Snapshots, checkpoints, logs.
        clock: `wall`, or `watermark` to take the newest event time as now: for a replay of history alone, since one event of
            today among it makes all of it old.
        user_ttl_s: A user's record is forgotten after this long without an engagement.
        item_ttl_s: An item leaves the catalogue after this long without an update, its activity after this long without an
            engagement.
        max_future_s: Engagements, and items published, further ahead of the wall clock become dead letters.
        max_item_age_s: Items older than this are not candidates; 0 keeps every item.
        serving_host, serving_port: Where `headwater serve` listens.
        serving_url: Where clients, the trainer and `headwater index` find the server; derived from host and port by default.
        serving_max_concurrency: Queries beyond this many at once are refused with 503.
        snapshot_every_s: Time between snapshots of the index.
        log_level: crit, error, warn, info or debug.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", extra="ignore")

    kafka_bootstrap_servers: str = "localhost:9092"
    kafka_api_version: Annotated[tuple[int, ...] | None, NoDecode] = None
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: Annotated[SecretStr | None, Field(validate_default=True)] = None
    redis_url: Annotated[SecretStr, Field(validate_default=False)] = SecretStr("redis://localhost:6379/0")
    namespace: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{0,64}$")] = ""
    model_dir: Path = Path("onnx")
    state_dir: Path = Path("var")
    clock: Literal["wall", "watermark"] = "wall"
    user_ttl_s: Annotated[int, Field(gt=0)] = 90 * DAY_S
    item_ttl_s: Annotated[int, Field(gt=0)] = 30 * DAY_S
    max_future_s: Annotated[int, Field(ge=0)] = 300
    max_item_age_s: Annotated[int, Field(ge=0)] = 0
    serving_host: str = "127.0.0.1"
    serving_port: Annotated[int, Field(ge=0, le=MAX_PORT)] = 8080
    serving_url: Annotated[str, Field(validate_default=True)] = ""
    serving_max_concurrency: Annotated[int, Field(gt=0)] = 256
    snapshot_every_s: Annotated[float, Field(gt=0)] = 300.0
    log_level: Literal["crit", "error", "warn", "info", "debug"] = "info"

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _bootstrap_servers(cls, value: str) -> str:
        return ",".join(filter(None, map(str.strip, value.split(","))))

    @field_validator("kafka_api_version", mode="before")
    @classmethod
    def _api_version(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(int(part) for part in value.split(".")) if value else None
        return value

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str) -> str:
        if value == DEFAULT_KEY_PREFIX:
            raise ValueError("is reserved (the key prefix without a namespace); choose another")
        return value

    @field_validator("kafka_sasl_password")
    @classmethod
    def _sasl(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        wanted = str(info.data.get("kafka_security_protocol")).startswith("SASL")
        given = [info.data.get("kafka_sasl_mechanism"), info.data.get("kafka_sasl_username"), value]
        if wanted != all(given) or wanted != any(given):
            raise ValueError("a SASL_… protocol needs mechanism, username and password, and no other takes them")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        import redis  # here: a producer needs no Redis

        try:
            redis.Redis.from_url(value.get_secret_value()).connection_pool.make_connection()
        except (ValueError, TypeError, redis.RedisError):
            raise ValueError("must be like redis://localhost:6379/0, with no options but redis-py's") from None
        return value

    @field_validator("serving_url")
    @classmethod
    def _serving_url(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return f"http://{_reachable(info.data.get('serving_host', ''))}:{info.data.get('serving_port')}"
        try:
            AnyHttpUrl(value)
        except ValidationError:
            raise ValueError("must be like http://127.0.0.1:8080") from None
        return value.rstrip("/")

    @property
    def names(self) -> Names:
        """Topic names and Redis keys of this installation."""
        return Names(self.namespace)

    def kafka_options(self) -> dict[str, Any]:
        """Return the connection options every kafka-python client takes."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap_servers.split(","),
            "security_protocol": self.kafka_security_protocol,
        }
        if self.kafka_api_version:
            options["api_version"] = self.kafka_api_version
        if self.kafka_sasl_password:
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
            options["sasl_plain_username"] = self.kafka_sasl_username
            options["sasl_plain_password"] = self.kafka_sasl_password.get_secret_value()
        return options


def _reachable(host: str) -> str:
    """Return the host by which a server that listens there is reached from this machine."""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def without_secrets(url: str) -> str:
    """Return an address as far as it can be shown: scheme, host, port and path."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    address = re.split("[?#]", rest)[0]
    if "@" in rest and "@" not in address:  # this may be the beginning of a password that holds the ? or #
        address = "…"
    return scheme + separator + address.rpartition("@")[-1]


def read_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        UsageError: a variable has a value it cannot have.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = "HEADWATER_" + "_".join(str(part) for part in first["loc"][:1]).upper()
        given, message = first["input"], first["msg"].removeprefix("Value error, ")
        if variable.endswith("_PASSWORD"):
            raise UsageError(f"{variable}: {message}") from None
        shown = without_secrets(given) if variable.endswith("_URL") else given
        raise UsageError(f"{variable}={shown!r}: {message}") from None

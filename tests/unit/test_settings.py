"""Settings: an address that cannot be one is told by its variable, without a password."""

import subprocess
import sys

import pytest
from pydantic import SecretStr
from redis import RedisError

from headwater.errors import ServiceUnavailable, UsageError
from headwater.reachable import redis_reachable
from headwater.settings import Settings, read_settings

WRONG = {
    "a port with letters": ("SERVING_URL", "http://h:80a0"),
    "a port too large": ("SERVING_URL", "http://h:80800"),
    "no scheme": ("SERVING_URL", "localhost:8080"),
    "no host": ("SERVING_URL", "http://"),
    "Redis' port a word": ("REDIS_URL", "redis://h:abc/0"),
    "Redis' database a word": ("REDIS_URL", "redis://h:6379?db=x"),
    "an option redis-py has not": ("REDIS_URL", "redis://h:6379/0?timeout=5"),
    "another scheme": ("REDIS_URL", "http://h:6379"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_address_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable, value = WRONG[name]
    monkeypatch.setenv(f"HEADWATER_{variable}", value)
    with pytest.raises(UsageError, match=rf"HEADWATER_{variable}='.*': must be like ") as caught:
        read_settings()
    assert repr(value.partition("?")[0]) in str(caught.value)


def test_a_namespace_is_another_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_NAMESPACE", "headwater")
    with pytest.raises(UsageError, match="HEADWATER_NAMESPACE='headwater': is reserved"):
        read_settings()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:geheim@h:abc/0", "redis://h:abc/0"),
        ("redis://h:abc/0?password=geheim", "redis://h:abc/0"),
        ("redis://h:abc/0?password=g@geheim", "redis://…"),
        ("redis://user:geheim?g@h:6379/0", "redis://…"),
        ("redis://user:g/geheim@h:abc/0", "redis://h:abc/0"),
        ("redis://user:geheim://geheim@h:abc/0", "redis://h:abc/0"),
        ("user:geheim@h:6379", "h:6379"),
    ],
)
def test_a_password_is_not_told(url: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_REDIS_URL", url)
    with pytest.raises(UsageError) as caught:
        read_settings()
    assert "geheim" not in str(caught.value)
    assert f"={shown!r}: " in str(caught.value)


def test_a_redis_that_is_away_is_told_without_its_password() -> None:
    settings = Settings(redis_url=SecretStr("redis://h:6379/0?password=geheim"))
    with pytest.raises(ServiceUnavailable) as caught, redis_reachable(settings):
        raise RedisError("away")
    assert str(caught.value).startswith("Redis at redis://h:6379/0 cannot be used")


def test_kafka_servers_may_have_spaces_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_KAFKA_BOOTSTRAP_SERVERS", " a:9092, b:9092 ,")
    settings = read_settings()
    assert settings.kafka_bootstrap_servers == "a:9092,b:9092"
    assert settings.kafka_options()["bootstrap_servers"] == ["a:9092", "b:9092"]


SASL = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "u", "SASL_PASSWORD": "geheim"}


@pytest.mark.parametrize("left_out", SASL)
def test_half_of_what_sasl_needs_is_refused(left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SASL.items():
        monkeypatch.setenv(f"HEADWATER_KAFKA_{name}", value)
    assert read_settings().kafka_options()["sasl_plain_password"] == "geheim"
    monkeypatch.delenv(f"HEADWATER_KAFKA_{left_out}")
    with pytest.raises(UsageError, match="HEADWATER_KAFKA_SASL_PASSWORD: a SASL_… protocol needs") as caught:
        read_settings()
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("h.example", "h.example")],
)
def test_the_server_is_found_where_it_listens(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SERVING_HOST", host)
    monkeypatch.setenv("HEADWATER_SERVING_PORT", "9000")
    assert read_settings().serving_url == f"http://{url}:9000"


def test_addresses_that_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SERVING_URL", "https://headwater.example/prefix/")
    monkeypatch.setenv("HEADWATER_REDIS_URL", "rediss://u:p@h:6380/1?socket_timeout=5&ssl_cert_reqs=none")
    assert read_settings().serving_url == "https://headwater.example/prefix"


def test_defaults_load_neither_client() -> None:
    code = "import sys; from headwater import Settings; Settings(); print({'redis', 'httpx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""Settings: an address that cannot be one is told by its variable, without a password."""

import subprocess
import sys

import pytest

from headwater.errors import UsageError
from headwater.settings import read_settings

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
    assert value in str(caught.value)


def test_a_namespace_is_another_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_NAMESPACE", "headwater")
    with pytest.raises(UsageError, match="HEADWATER_NAMESPACE='headwater': is what keys begin with"):
        read_settings()


def test_a_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_REDIS_URL", "redis://user:geheim@h:abc/0")
    with pytest.raises(UsageError) as caught:
        read_settings()
    assert "geheim" not in str(caught.value)


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

"""Fixtures that many tests share."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.settings import Settings
from tests.services import ROOT, KafkaService, RedisService
from tests.system import settings_of

SERVICE_FIXTURES = {"kafka", "redis_server", "settings"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-services", action="store_true", help="Leave out tests that need Kafka or redis-server.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if SERVICE_FIXTURES & set(getattr(item, "fixturenames", ()))]
    for item in needing:
        item.add_marker(pytest.mark.services)
    if config.getoption("--without-services"):
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaService]:
    """A real Kafka node."""
    with KafkaService() as service:
        yield service


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisService]:
    """A real redis-server."""
    with RedisService() as service:
        yield service


@pytest.fixture
def settings(kafka: KafkaService, redis_server: RedisService, tmp_path: Path) -> Settings:
    """Settings of an installation of its own on the real services."""
    return settings_of(kafka, redis_server, tmp_path, namespace=f"t{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data, where it is there."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data: ../shared/data is absent")
    return path

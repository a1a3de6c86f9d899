"""One system a module: its tests leave it answering."""

from collections.abc import Iterator

import pytest

from headwater.client import HeadwaterClient
from headwater.settings import Settings
from tests.integration.serving.catalogue import answering, installed
from tests.services import KafkaService, RedisService
from tests.system import Server


@pytest.fixture(scope="module")
def system(
    request: pytest.FixtureRequest,
    kafka: KafkaService,
    redis_server: RedisService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Settings, Server]]:
    """A stream worker and a server with the catalogue, v1 live; a module may bound its `CONCURRENCY`."""
    concurrency = getattr(request.module, "CONCURRENCY", 256)
    settings = installed(kafka, redis_server, tmp_path_factory.mktemp("system"), serving_max_concurrency=concurrency)
    with answering(settings) as server:
        yield settings, server


@pytest.fixture
def client(system: tuple[Settings, Server]) -> Iterator[HeadwaterClient]:
    """A client of the system's server."""
    with HeadwaterClient(system[0].serving_url) as client:
        yield client

"""The compose file speaks of verbs, settings and image targets that exist."""

import re
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from headwater.cli import cli
from headwater.settings import Settings
from tests.services import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def test_each_role_has_a_service() -> None:
    assert {"stream", "serve", "train"} <= set(OURS)
    assert {"kafka", "redis"} <= set(COMPOSE["services"])


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_built_and_started_as_it_says(name: str) -> None:
    service = OURS[name]
    target = service["build"]["target"]
    assert re.search(rf"^FROM .* AS {target}$", DOCKERFILE, re.MULTILINE)
    assert {variable.removeprefix("HEADWATER_").lower() for variable in service["environment"]} <= set(
        Settings.model_fields
    )
    for needed in service["depends_on"]:
        assert needed in COMPOSE["services"]
    for volume in service.get("volumes", ()):
        assert volume.split(":")[0] in COMPOSE["volumes"]
    if "command" in service:
        asked = CliRunner().invoke(cli, [*service["command"][1:], "--help"])
        assert asked.exit_code == 0, asked.output


def test_what_is_to_survive_is_on_a_volume_under_a_lasting_name() -> None:
    kafka, serve = COMPOSE["services"]["kafka"], COMPOSE["services"]["serve"]
    assert f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}" in kafka["volumes"]
    assert serve["hostname"] == "serve", "snapshots are kept under the host name"


def test_the_image_starts_verbs_that_exist() -> None:
    for verb in re.findall(r'^CMD \["headwater", "(\w+)"', DOCKERFILE, re.MULTILINE):
        assert CliRunner().invoke(cli, [verb, "--help"]).exit_code == 0

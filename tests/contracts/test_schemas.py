"""The checked-in schemas are those of the models."""

import pytest

from headwater import names
from headwater.schemas import BINARY_TOPICS, DIRECTORY, JSON_TOPICS, documents, rendered


@pytest.mark.parametrize("name", sorted(documents()))
def test_checked_in_schema_is_current(name: str) -> None:
    assert (DIRECTORY / name).read_text(encoding="utf-8") == rendered(documents()[name]), "run `make docs`"


def test_every_kafka_topic_is_described() -> None:
    assert set(JSON_TOPICS) | set(BINARY_TOPICS) == set(names.TOPICS)


def test_no_file_is_left_over() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(documents())

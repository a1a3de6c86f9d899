"""Index rotation under queries, and bundles that are refused."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from headwater.client import HeadwaterClient
from headwater.errors import HeadwaterError, UnknownGeneration
from headwater.generations import Alias, Generations
from headwater.names import ITEM_EMBEDDINGS, Names
from headwater.query_load import QueryLoad
from headwater.settings import Settings
from tests.bundles import make_bundle
from tests.integration.serving.catalogue import TOPICS
from tests.services import RedisService, poll
from tests.system import Server, headwater, records_of


def test_rotation_under_queries(system: tuple[Settings, Server]) -> None:
    settings, _ = system
    users = [f"u{number}" for number in range(50)]
    with QueryLoad(settings.serving_url, users, ["news", "sport"]) as load:
        assert "60 items embedded" in headwater(settings, "index", "build", "v2").stdout
        assert "would become live" in headwater(settings, "index", "promote", "v2", "--dry-run").stdout
        assert headwater(settings, "index", "promote", "v2").returncode == 0
        load.wait_for("v2")
        assert "v1 is live" in headwater(settings, "index", "rollback").stdout
        after = load.versions["v1"]
        poll(lambda: load.versions["v1"] > after + 20, 30, "v1 answers again")
    assert (load.failed, load.mixed) == (0, 0)
    assert set(load.versions) == {"v1", "v2"}
    listed = json.loads(headwater(settings, "index", "list", "--json").stdout)
    assert listed["alias"]["version"] == "v1"
    assert [row["verified"] for row in listed["generations"]] == [True, True]
    assert (
        headwater(settings, "index", "prune", "--keep", "1", "--json").stdout.strip()
        == '{"pruned": [], "dry_run": false}'
    )


def test_broken_bundles_are_refused(system: tuple[Settings, Server]) -> None:
    settings, server = system
    make_bundle(settings.model_dir, "v4", TOPICS)
    (settings.model_dir / "v4" / "user_tower.onnx").write_bytes(b"broken")
    refused = headwater(settings, "index", "build", "v4")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "user_tower.onnx is not the file that was published" in refused.stderr
    for arguments in (("build", "v9"), ("verify", "v9"), ("promote", "v9")):
        gone = headwater(settings, "index", *arguments)
        assert gone.returncode == 1
        assert len(gone.stderr.strip().splitlines()) == 1, gone.stderr
    make_bundle(settings.model_dir, "v3", TOPICS, dimension=4)
    assert headwater(settings, "index", "build", "v3").returncode == 0
    manifest = settings.model_dir / "v3" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"feature_schema": "', '"feature_schema": "other'))
    verified = headwater(settings, "index", "verify", "v3")
    assert verified.returncode == 1
    assert "feature schema" in verified.stdout
    promoted = headwater(settings, "index", "promote", "v3")
    assert promoted.returncode == 1
    assert "failed verification" in promoted.stderr
    assert server.get("/v1/generations").json()["alias"]["version"] == "v1"


def test_one_generation_answers_all_of_a_large_request(system: tuple[Settings, Server]) -> None:
    settings, _ = system
    users = [f"user-{number}" for number in range(5_000)]
    assert headwater(settings, "index", "build", "v2").returncode == 0
    with HeadwaterClient(settings.serving_url) as client, ThreadPoolExecutor() as pool:
        stop, mixed, seen = threading.Event(), list[set[str]](), set[str]()

        def ask() -> None:
            while not stop.is_set():
                try:
                    versions = {each.generation for each in client.notify(users, "news", k=5)}
                except HeadwaterError as error:
                    mixed.append({str(error)})
                    return
                seen.update(versions)
                if len(versions) != 1:
                    mixed.append(versions)

        asking = pool.submit(ask)
        for version in ("v2", "v1", "v2"):
            promoted = headwater(settings, "index", "promote", version)
            assert promoted.returncode == 0, promoted.stderr
        poll(lambda: seen == {"v1", "v2"}, 30, "both answered")
        stop.set()
        asking.result(60)
    assert mixed == []


def test_nothing_of_a_pruned_generation_stays_in_kafka(system: tuple[Settings, Server]) -> None:
    settings, server = system
    make_bundle(settings.model_dir, "v0", TOPICS)
    assert headwater(settings, "index", "build", "v0").returncode == 0
    live = server.get("/v1/generations").json()["alias"]["version"]
    assert "v0" in json.loads(headwater(settings, "index", "prune", "--keep", "1", "--json").stdout)["pruned"]
    poll(lambda: "v0" not in headwater(settings, "index", "list", "--json").stdout, 60, "v0 is off the registry")
    newest = {record.key: record.value for record in records_of(settings, ITEM_EMBEDDINGS)}
    left = [key for key, value in newest.items() if value is not None and key.startswith(b"v0/")]
    assert left == []
    assert any(value is not None for value in newest.values())
    assert server.get("/v1/generations").json()["alias"]["version"] == live


def test_the_alias_and_what_is_pruned_keep_clear_of_each_other(redis_server: RedisService) -> None:
    with Redis.from_url(redis_server.url) as redis:
        generations = Generations(redis, Names(uuid.uuid4().hex))
        for version in ("v1", "v2", "v3"):
            generations.request(version)
        alias = generations.move_alias(generations.move_alias(Alias(), "v1"), "v2")
        assert [generations.prune(version) for version in ("v1", "v2", "v3", "v4")] == [False, False, True, True]
        with pytest.raises(UnknownGeneration, match="pruned"):
            generations.move_alias(alias, "v3")
        assert generations.alias() == alias

"""The README says what is there, and what is there is in the README."""

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from headwater import names
from headwater.cli import cli
from headwater.settings import Settings
from tests.services import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
VERBS = [name for name in cli.list_commands(None) if name != "embedded"]  # type: ignore[arg-type]


def test_every_setting_is_documented() -> None:
    documented = set(re.findall(r"`(HEADWATER_[A-Z_]+)`", README))
    assert documented == {f"HEADWATER_{name.upper()}" for name in Settings.model_fields}


def test_every_metric_is_documented() -> None:
    for name, value in vars(names).items():
        if name.startswith("METRIC_"):
            assert value in README, value


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented_and_helps(verb: str) -> None:
    assert f"`headwater {verb}`" in README
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0, result.output


def test_documented_verbs_exist() -> None:
    assert set(re.findall(r"^\| `headwater ([a-z-]+)`", README, re.MULTILINE)) == set(VERBS)


def test_python_examples_compile_and_import() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        imports = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
        subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(imports)], check=True)
        compile(block, "README", "exec")


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


MISTAKES = {
    "unknown verb": ["nothing"],
    "unknown flag": ["train", "--never"],
    "neither once nor every": ["train"],
    "bad duration": ["train", "--every", "soon"],
    "missing file": ["evaluate", "--engagements", "none.csv", "--items", "none.csv"],
    "bad speed": ["replay", "--engagements", "none.csv", "--speed", "fast"],
    "bad time": ["replay", "--engagements", "none.csv", "--from", "yesterday"],
    "k too large": ["notify", "--topic", "t", "--users", "u.csv", "--output", "o.csv", "--k", "0"],
    "keep nothing": ["index", "prune", "--keep", "0"],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_without_a_traceback(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "headwater", *MISTAKES[name]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"), ("REDIS_URL", "redis://127.0.0.1:1/0"), ("SERVING_PORT", "many")],
)
def test_services_that_are_away_are_named(variable: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "headwater", "stream"],
        env={f"HEADWATER_{variable}": value, "HEADWATER_REDIS_URL": "redis://127.0.0.1:1/0", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("headwater: ")

"""`headwater up` on embedded services: comes up, restarts what crashes, ends together."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.services import free_port, poll


def parts_of(parent: int) -> dict[str, int]:
    """Return the supervisor's children: the verb they run to their process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status, command = (entry / "stat").read_text(), (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(status.rsplit(")", 1)[1].split()[1]) == parent and b"headwater" in command:
                found[b" ".join(command[command.index(b"headwater") + 1 :]).decode().split()[0]] = int(entry.name)
    return found


def alive(number: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return False


def started(tmp_path: Path, port: int) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "HEADWATER_SERVING_PORT": str(port),
        "HEADWATER_STATE_DIR": str(tmp_path / "var"),
        "HEADWATER_MODEL_DIR": str(tmp_path / "onnx"),
        "PYTHONWARNINGS": "ignore",
    }
    with (tmp_path / "up.log").open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "headwater", "up", "--train-every", "1h"], env=environment, stdout=file, stderr=file
        )


def test_a_signal_while_parts_start_ends_all_of_them(tmp_path: Path) -> None:
    up = started(tmp_path, free_port())
    try:
        poll(lambda: "stream" in parts_of(up.pid), 60, "the stream worker starts")
        parts = parts_of(up.pid)
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) in (0, 130)
        poll(lambda: not any(map(alive, parts.values())), 10, "every part ended")
        assert list((tmp_path / "var").iterdir()) == []
    finally:
        if up.poll() is None:
            up.kill()


def test_parts_end_with_an_up_that_is_killed(tmp_path: Path) -> None:
    up = started(tmp_path, free_port())
    try:
        poll(lambda: {"stream", "serve", "train"} <= set(parts_of(up.pid)), 60, "all parts start")
        parts = parts_of(up.pid)
    finally:
        up.kill()
        up.wait()
    poll(lambda: not any(map(alive, parts.values())), 60, "every part ended")


def test_up_restarts_a_crashed_part_and_ends_all_of_it(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "up.log"
    up = started(tmp_path, port)

    def answers() -> bool:
        assert up.poll() is None, log.read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        poll(answers, 60, "the server answers")
        parts = parts_of(up.pid)
        assert set(parts) == {"embedded", "stream", "serve", "train"}
        os.kill(parts["serve"], signal.SIGKILL)
        poll(lambda: parts_of(up.pid).get("serve", parts["serve"]) != parts["serve"], 30, "the server is started again")
        poll(answers, 60, "the server answers again")
        parts = parts_of(up.pid)
        (files,) = (tmp_path / "var").iterdir()
        assert (files / "faust").is_dir(), "the state of an embedded log is in a directory of its own"
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0, log.read_text()
        poll(lambda: not any(map(alive, parts.values())), 10, "every part ended")
        assert not files.exists()
    finally:
        if up.poll() is None:
            up.kill()
    text = log.read_text()
    assert re.search(r"serve +ended with exit code -9; starting again in 0.5 s", text)
    assert "Traceback" not in text

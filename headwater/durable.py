"""Crash-safe file publication: fsync, then rename."""

import os
from hashlib import file_digest
from pathlib import Path


def digest(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Make a file or directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_directory(temporary: Path, target: Path) -> None:
    """Make the files in `temporary` durable, then let them appear as `target`, all at once."""
    for path in (*temporary.iterdir(), temporary):
        fsync(path)
    temporary.rename(target)
    fsync(target.parent)

"""Crash-safe file publication: fsync, then rename."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold a lock file, which is deleted afterwards; the lock of a killed process is free.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be opened.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            same = os.path.samestat(os.fstat(file.fileno()), lock.stat())
        except FileNotFoundError:
            same = False
        if not same:  # its former holder deleted it between our opening and locking it
            raise BlockingIOError(f"{lock} is just being given up")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

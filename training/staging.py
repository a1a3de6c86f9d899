"""Directories that are written aside before they appear under their name, by one trainer at a time."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headwater.errors import HeadwaterError, UsageError

PREFIX = ".staging-"


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Make a directory inside another to write in; rename it, or it is gone afterwards, as are those of killed processes.

    Raises:
        HeadwaterError: writing failed.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for torn in directory.glob(f"{PREFIX}*"):
            shutil.rmtree(torn, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise HeadwaterError(f"{directory} cannot be written: {error}; see that there is room") from error


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other trainers from a directory.

    Raises:
        UsageError: another one is at work there.
        HeadwaterError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise HeadwaterError(f"{directory} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another trainer is at work in {directory}") from None
        yield

"""Directories that are written aside before they appear under their name, by one trainer at a time."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from headwater.durable import exclusive
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
def exclusive_directory(directory: Path) -> Iterator[None]:
    """Reserve a directory for this trainer.

    Raises:
        UsageError: another trainer is at work there.
        HeadwaterError: it cannot be written.
    """
    with ExitStack() as held:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive(directory / ".lock"))
        except BlockingIOError:
            raise UsageError(f"another trainer is at work in {directory}") from None
        except OSError as error:
            raise HeadwaterError(f"{directory} cannot be written: {error.strerror}") from error
        yield

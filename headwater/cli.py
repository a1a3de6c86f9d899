"""The `headwater` command, assembled from the entry points of what is installed."""

import ctypes
import os
import signal
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points

import click

from headwater import __version__
from headwater.errors import HeadwaterError, UsageError

GROUP = "headwater.commands"
SUPERVISOR = "HEADWATER_SUPERVISOR"
"""Names the process id of the supervisor that started this process."""
PR_SET_PDEATHSIG = 1
EXTRAS = {"streams": "faust-streaming", "serving": "fastapi", "training": "torch", "embedded": "confluent-kafka"}
"""Extra to a distribution that it installs; a verb needs the extra named like the package that the verb is in."""


class Commands(click.Group):
    """Loads a verb's module only when it is called, and lists only verbs whose extra is installed."""

    def _verbs(self) -> dict[str, EntryPoint]:
        return {each.name: each for each in entry_points(group=GROUP) if _runnable(each)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._verbs())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = self._verbs().get(cmd_name)
        if verb is None:
            return None
        command: click.Command = verb.load()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(70)) for name, command in commands if command])


def _runnable(verb: EntryPoint) -> bool:
    required = EXTRAS.get(verb.module.partition(".")[0])
    return required is None or is_installed(required)


def is_installed(name: str) -> bool:
    """Return whether a distribution is installed, without importing it."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headwater")
def cli() -> None:
    """Streaming, near-real-time conditional retrieval."""


def main() -> None:
    """Run a verb; a mistake is one line on standard error, never a traceback.

    Exit codes: 0 done, 1 the system could not do it, 2 the caller's mistake, 130 interrupted.
    """
    _end_with_supervisor()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a query's matrices are small: threads would only spin
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except UsageError as error:
        code = _report(error, 2)
    except HeadwaterError as error:
        code = _report(error, 1)
    except OSError as error:
        if error.filename is None:
            raise
        code = _report(HeadwaterError(f"{error.filename}: {error.strerror}"), 1)
    sys.exit(code)


def _report(error: HeadwaterError, code: int) -> int:
    click.echo(f"headwater: {error}", err=True)
    return code


def _end_with_supervisor() -> None:
    """Have Linux end this process with its supervisor, which cannot stop its children when killed."""
    if sys.platform != "linux" or os.environ.get(SUPERVISOR) != str(os.getppid()):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.environ[SUPERVISOR] != str(os.getppid()):  # it ended meanwhile
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The group of commands: found when used, and every way to fail mapped to one line and an exit code.

Exit codes: 0, 2 for wrong use or bad input, 130 on Ctrl-C, 143 on SIGTERM, 141 where the reader of a pipe went away.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from moefps.errors import MoefpsError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["LazyGroup"]

EXIT_BAD_INPUT = 2
EXIT_SIGNAL = 128


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; not an Exception, so that only clean-up code sees it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used.

    Parameters
    ----------
    commands_help : dict
        Name of a command to its line in the group's help. The command is the object of that name in the module of
        that name, beside this one.
    """

    def __init__(self, *args: Any, commands_help: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_help = commands_help

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order in which people need them."""
        return list(self._commands_help)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._commands_help:
            return None
        return cast("click.Command", getattr(import_module(f"moefps.cli.{cmd_name}"), cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._commands_help.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, print what went wrong in one line, and exit with the right code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            code = result if isinstance(result, int) else 0
        except click.ClickException as error:
            code = _report_usage(error)
        except click.Abort:
            code = _report_interrupt()
        sys.exit(_flush(code))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, with its errors, warnings and signals turned into lines and codes."""
        with _signals_raise(), _warnings_in_one_line():
            try:
                return super().invoke(ctx)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            # The last line of defence: whatever it is, the user gets one line.
            except BaseException as error:  # noqa: BLE001
                if os.environ.get("MOEFPS_TRACEBACK", "0") not in {"", "0"}:
                    traceback.print_exc()
                code = _report(error)
        raise click.exceptions.Exit(code)


def _report(error: BaseException) -> int:
    """Print one line for an error and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return _report_interrupt()
    if isinstance(error, _Terminated):
        click.echo("terminated", err=True)
        return EXIT_SIGNAL + error.number
    if isinstance(error, BrokenPipeError):
        _drop_stdout()
        return EXIT_SIGNAL + getattr(signal, "SIGPIPE", 13)
    if isinstance(error, MoefpsError):
        _say("error", str(error))
    elif isinstance(error, MemoryError):
        _say("error", f"not enough memory: {error}" if str(error) else "not enough memory")
    elif isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        _say("error", f"{error.filename}: {reason}" if error.filename else reason)
    elif isinstance(error, Exception):
        _say("error", f"unexpected {type(error).__name__}: {error} (MOEFPS_TRACEBACK=1 shows where)")
    else:
        raise error
    return EXIT_BAD_INPUT


def _report_usage(error: click.ClickException) -> int:
    """Print wrong use in one line, and where to read more in another."""
    # click has this class from 8.2 on.
    no_arguments = getattr(click.exceptions, "NoArgsIsHelpError", None)
    if no_arguments is not None and isinstance(error, no_arguments):
        error.show()
        return EXIT_BAD_INPUT
    message = error.format_message().rstrip(".")
    _say("error", message[:1].lower() + message[1:])
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"try: {error.ctx.command_path} --help", err=True)
    return EXIT_BAD_INPUT


def _report_interrupt() -> int:
    with suppress(ValueError):
        # A second Ctrl-C while we leave would only print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The terminal has just printed ^C on this line.
    click.echo("\ninterrupted" if sys.stderr.isatty() else "interrupted", err=True)
    return EXIT_SIGNAL + signal.SIGINT


def _say(kind: str, message: str) -> None:
    """Print one line on stderr; in colour on a terminal, unless NO_COLOR is set."""
    colour = {"error": "red", "warning": "yellow"}[kind]
    label = click.style(f"{kind}:", fg=colour, bold=True) if not os.environ.get("NO_COLOR") else f"{kind}:"
    click.echo(f"{label} {' '.join(message.split())}", err=True)


def _flush(code: int) -> int:
    """Flush stdout while an error can still be reported, and return the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # After another error, it is no news that stdout fails.
        code = code or _report(error)
        _drop_stdout()
    return code


def _drop_stdout() -> None:
    """Let what is left in the buffer go nowhere, as Python would complain about it at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that unfinished files are removed."""

    def unwind(number: int, _: FrameType | None) -> NoReturn:
        raise _Terminated(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # One that is ignored stays ignored, as nohup has it.
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show warnings as one line on stderr, without the line of code that Python adds."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say("warning", str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield

"""Progress on stderr: a bar on a terminal, lines elsewhere when asked for."""

from __future__ import annotations

import sys
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moefps._typing import ProgressCallback

__all__ = ["progress_on_stderr"]

_SECONDS_BETWEEN_LINES = 0.25


@contextmanager
def progress_on_stderr(
    description: str, *, show_progress: bool | None, quiet: bool
) -> Iterator[ProgressCallback | None]:
    """Give a callback that shows progress, or None where none is wanted.

    Parameters
    ----------
    description : str
        What is being done.
    show_progress : bool or None
        None means: where stderr is a terminal.
    quiet : bool
        True wins over `show_progress`, and hides warnings too.

    Yields
    ------
    callable or None
        Takes ``(done, total)``.
    """
    if quiet:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield None
        return
    if not (sys.stderr.isatty() if show_progress is None else show_progress):
        yield None
        return
    # rich is slow to import, and most runs in scripts show nothing.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _lines(description)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        # Two decimals, so that the number moves several times a second in runs of many minutes too.
        TextColumn("{task.percentage:5.2f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


def _lines(description: str) -> ProgressCallback:
    """Give a callback that prints a line now and then, for logs."""
    last = 0.0

    def advance(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            click.echo(f"{description}: {100 * done / max(total, 1):.1f} %", err=True)

    return advance

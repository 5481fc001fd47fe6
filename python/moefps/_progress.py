"""One progress bar for every long call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moefps._typing import Progress, ProgressCallback

__all__ = ["progress_callback"]


@contextmanager
def progress_callback(progress: Progress, description: str) -> Iterator[ProgressCallback | None]:
    """Turn what the user passed as ``progress`` into a callback, or into None for no progress.

    Parameters
    ----------
    progress : bool or callable
        True shows a bar on stderr for as long as the context is open; a callable is handed through.
    description : str
        What the bar says is being done.

    Yields
    ------
    callable or None
        Takes ``(done, total)``, from the main thread, several times a second.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield None
    else:
        # rich is slow to import, and most calls show nothing.
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=None)

            def advance(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield advance

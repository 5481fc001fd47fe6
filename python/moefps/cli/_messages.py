"""Errors of the Python API in the words of the command line: files for arrays, options for arguments."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moefps.errors import MoefpsError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["in_words_of_the_command"]

_OPTIONS = {
    "ground": "--positions",
    "layer_weights": "--layer-weights",
    "n_random": "--n-random",
    "n_select": "-m",
    "n_threads": "--threads",
    "seed": "--seed",
    "start": "--start",
    "stop_radius": "--stop-radius",
}


@contextmanager
def in_words_of_the_command(names: tuple[str, ...] | None = None, **arrays: str) -> Iterator[None]:
    """Rename what an error of the Python API is about.

    Parameters
    ----------
    names : tuple of str, optional
        A name for every sample of X.
    **arrays : str
        The file that each array argument came from.

    Examples
    --------
    >>> from moefps.errors import DataError
    >>> with in_words_of_the_command(X="samples.npy"):
    ...     raise DataError("X: sample 3, layer 1 is all zeros")
    Traceback (most recent call last):
    moefps.errors.DataError: samples.npy: sample 3, layer 1 is all zeros
    """
    try:
        yield
    except MoefpsError as error:
        argument, colon, rest = str(error).partition(": ")
        words = {**_OPTIONS, **arrays}
        if not colon or argument not in words:
            raise
        if argument == "X" and names is not None:
            rest = re.sub(r"\bsample (\d+)", lambda match: f"{match[0]} ({names[int(match[1])]})", rest, count=1)
        rest = rest.replace("normalize=True", "--normalize")
        raise type(error)(f"{words[argument]}: {rest}") from error

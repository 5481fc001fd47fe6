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
    "by": "--by",
    "capacity_factor": "--capacity-factor",
    "ci": "--ci",
    "activation": "--activation",
    "convention": "--convention",
    "drop_empty": "--drop-empty",
    "ground": "--positions",
    "kind": "--kind",
    "layer_weights": "--layer-weights",
    "layers": "--layers",
    "metrics": "--metric",
    "n_random": "--n-random",
    "n_resamples": "--resamples",
    "n_select": "-m",
    "n_threads": "--threads",
    "seed": "--seed",
    "single_layer": "--single-layer",
    "start": "--start",
    "stop_radius": "--stop-radius",
    "stride": "--stride",
    "targets": "--targets",
    "threshold": "--threshold",
    "window": "--window",
}

_SETTINGS = {"normalize=True": "--normalize", "drop_empty=True (--drop-empty)": "--drop-empty"}


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
        text = str(error)
        for python, option in _SETTINGS.items():
            text = text.replace(python, option)
        argument, colon, rest = text.partition(": ")
        words = {**_OPTIONS, **arrays}
        entry = re.fullmatch(r"(\w+)\[(\d+)\]", argument)
        if entry is not None and entry[1] in arrays:
            # An entry of a list, such as texts[3].
            argument, rest = entry[1], f"sample {entry[2]} (from 0): {rest}"
        if not colon or argument not in words:
            if text == str(error):
                raise
            raise type(error)(text) from error
        if argument == "X" and names is not None:
            rest = re.sub(r"\bsample (\d+)", lambda match: f"{match[0]} ({names[int(match[1])]})", rest, count=1)
        raise type(error)(f"{words[argument]}: {rest}") from error

"""Paths that people pass in: text, or what stands for a path."""

from __future__ import annotations

import os
from typing import Any

from moefps.errors import ArgumentError

__all__ = ["check_path"]


def check_path(path: Any, name: str = "path", accepted: str = "text or a pathlib.Path") -> str:
    """Return a path as text.

    Parameters
    ----------
    path : path
        As it was given.
    name : str
        The argument.
    accepted : str
        What it takes, for the message.

    Raises
    ------
    ArgumentError
        It is no path, or an empty one, which the system takes for the folder that one is in.

    Examples
    --------
    >>> check_path("a.dump")
    'a.dump'
    """
    found = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(found, str):
        raise ArgumentError(f"{name}: got a {type(path).__name__}; accepted: {accepted}")
    if not found or "\0" in found:
        raise ArgumentError(f"{name}: {'has a null character' if found else 'is empty'}; accepted: {accepted}")
    return found

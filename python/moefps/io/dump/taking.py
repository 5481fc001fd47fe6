"""Dumps as arguments: opened already, or by their folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError
from moefps.io.dump.reading import Dump, open_dump
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from moefps._typing import PathLike

__all__ = ["take_dump", "take_source"]


def take_dump(dump: Dump | PathLike, argument: str) -> Dump:
    """Return a dump as it is, or open its folder; `argument` holds it.

    Raises
    ------
    ArgumentError
        It is neither.
    FileError, DumpError, DtypeError
        As `open_dump`.
    """
    if isinstance(dump, Dump):
        return dump
    return open_dump(check_path(dump, argument, "a Dump, or the folder of one"))


def take_source(source: Any, argument: str, array: str) -> Any:
    """Return a dump, opened where its folder is given, or what is to be an array, unchecked.

    Raises
    ------
    ArgumentError
        It can be neither; `array` says what is accepted beside a dump.
    FileError, DumpError, DtypeError
        As `open_dump`.
    """
    if isinstance(source, str | os.PathLike):
        return take_dump(source, argument)
    if source is None or isinstance(source, bytes | int | float | complex):
        raise ArgumentError(
            f"{argument}: got a {type(source).__name__}; accepted: a Dump, the folder of one, or {array}"
        )
    return source

"""Several tables to a folder, which appears only when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from moefps.errors import FileError
from moefps.io.atomic import file_error
from moefps.io.tables import table_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from moefps._typing import PathLike
    from moefps.io.tables import TableFormat

__all__ = ["ABOUT", "check_table_folder", "write_table_folder"]

ABOUT = "about.json"
"""What was measured and how, beside the tables; also the sign that a folder is one of ours."""


def check_table_folder(path: PathLike, *, overwrite: bool = False) -> Path:
    """Check, before any work is done, that a folder of tables can be written.

    Parameters
    ----------
    path : path
        Where the folder is to be.
    overwrite : bool
        True accepts a folder that was written by `write_table_folder`.

    Returns
    -------
    Path
        The path with symbolic links followed.

    Raises
    ------
    FileError
        The folder around it is missing or not writable; or it exists, and `overwrite` is False or it is another kind
        of folder, which is never replaced.
    """
    name, target = os.fspath(path), Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileError(f"{name}: the folder {target.parent} does not exist")
    if os.path.lexists(target):
        if not overwrite:
            raise FileError(f"{name}: exists already, pass --overwrite to replace it")
        if not target.is_dir() or not (target / ABOUT).is_file():
            raise FileError(f"{name}: is no folder of tables (it has no {ABOUT}), so it is not replaced")
    if not os.access(target.parent, os.W_OK):
        raise FileError(f"{name}: the folder {target.parent} is not writable")
    return target


def write_table_folder(
    path: PathLike,
    tables: Mapping[str, pl.DataFrame],
    about: Mapping[str, Any],
    *,
    file_format: TableFormat = "csv",
    overwrite: bool = False,
) -> Path:
    """Write tables and `about.json` to a folder.

    Parameters
    ----------
    path : path
        The folder.
    tables : mapping of str to polars.DataFrame
        Each becomes the file of that name.
    about : mapping
        What is written to ``about.json``: numbers, texts, lists, mappings.
    file_format : {"csv", "json", "parquet"}
        How the tables are written.
    overwrite : bool
        True replaces a folder that was written here before.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileError
        As `check_table_folder`, or the disk is full; nothing is left then, and what was there before stays.

    Examples
    --------
    >>> import polars as pl, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "found"
    >>> folder = write_table_folder(path, {"layers": pl.DataFrame({"layer": [0]})}, {"source": "a.dump"})
    >>> sorted(entry.name for entry in folder.iterdir())
    ['about.json', 'layers.csv']
    """
    target = check_table_folder(path, overwrite=overwrite)
    temporary, before = (target.with_name(f".{target.name}.{token_hex(4)}.{word}") for word in ("part", "old"))
    try:
        temporary.mkdir()
        for name, table in tables.items():
            (temporary / f"{name}.{file_format}").write_bytes(table_bytes(table, file_format))
        text = json.dumps(dict(about), indent=2, ensure_ascii=False, allow_nan=False)
        (temporary / ABOUT).write_text(text + "\n", encoding="utf-8")
        if target.exists():
            target.rename(before)
        try:
            temporary.rename(target)
        except BaseException:
            if before.exists():
                before.rename(target)
            raise
    except OSError as error:
        raise file_error(path, error) from error
    finally:
        for left in (temporary, before):
            if left.exists():
                with suppress(OSError):
                    shutil.rmtree(left)
    return target

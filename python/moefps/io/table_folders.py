"""Several tables to a folder, which appears only when it is whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moefps.io.folders import FolderKind, atomic_folder, check_folder
from moefps.io.tables import table_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from moefps._typing import PathLike
    from moefps.io.tables import TableFormat

__all__ = ["ABOUT", "check_table_folder", "json_bytes", "write_table_folder"]

ABOUT = "about.json"
"""What was measured and how, beside the tables; also the sign that a folder is one of ours."""

_TABLES = FolderKind("folder of tables", (ABOUT,), ("*.csv", "*.json", "*.parquet"))


def check_table_folder(path: PathLike, *, overwrite: bool = False) -> Path:
    """Check, before any work is done, that a folder of tables can be written: as `check_folder` does."""
    return check_folder(path, _TABLES, overwrite=overwrite)


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
        As `atomic_folder`; nothing is left then, and what was there before stays.

    Examples
    --------
    >>> import polars as pl, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "found"
    >>> folder = write_table_folder(path, {"layers": pl.DataFrame({"layer": [0]})}, {"source": "a.dump"})
    >>> sorted(entry.name for entry in folder.iterdir())
    ['about.json', 'layers.csv']
    """
    with atomic_folder(path, _TABLES, overwrite=overwrite) as folder:
        for name, table in tables.items():
            (folder / f"{name}.{file_format}").write_bytes(table_bytes(table, file_format))
        (folder / ABOUT).write_bytes(json_bytes(about))
    return Path(os.path.realpath(path))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Encode what stands beside tables: readable, and with a final newline."""
    return json.dumps(dict(content), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"

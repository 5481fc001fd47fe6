"""A comparison to a folder, which appears only when it is whole."""

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

__all__ = ["FINDINGS", "SUMMARY", "check_comparison_folder", "write_comparison_folder"]

SUMMARY = "summary.json"
FINDINGS = "findings.md"
_TABLES = "tables"


def check_comparison_folder(path: PathLike, *, overwrite: bool = False) -> Path:
    """Check, before any work is done, that a comparison can be written.

    Parameters
    ----------
    path : path
        Where the folder is to be.
    overwrite : bool
        True accepts a folder that holds a comparison.

    Returns
    -------
    Path
        The path with symbolic links followed.

    Raises
    ------
    FileError
        The folder around it is missing or not writable; or it exists, and `overwrite` is False or it holds something
        else, which is never replaced.
    """
    name, target = os.fspath(path), Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileError(f"{name}: the folder {target.parent} does not exist")
    if os.path.lexists(target):
        if not overwrite:
            raise FileError(f"{name}: exists already, pass --overwrite to replace it")
        if not (target / SUMMARY).is_file() or not (target / _TABLES).is_dir():
            raise FileError(f"{name}: is no comparison (it has no {SUMMARY} beside {_TABLES}), so it is not replaced")
    if not os.access(target.parent, os.W_OK):
        raise FileError(f"{name}: the folder {target.parent} is not writable")
    return target


def write_comparison_folder(
    path: PathLike,
    tables: Mapping[str, pl.DataFrame],
    summary: Mapping[str, Any],
    findings: str,
    *,
    file_format: TableFormat = "csv",
    overwrite: bool = False,
) -> Path:
    """Write tables, summary and findings.

    Raises
    ------
    FileError
        As `check_comparison_folder`, or the disk is full; nothing is left then, and what was there before stays.
    """
    target = check_comparison_folder(path, overwrite=overwrite)
    temporary, before = (target.with_name(f".{target.name[:40]}.{token_hex(4)}.{word}") for word in ("part", "old"))
    try:
        (temporary / _TABLES).mkdir(parents=True)
        for name, table in tables.items():
            (temporary / _TABLES / f"{name}.{file_format}").write_bytes(table_bytes(table, file_format))
        text = json.dumps(dict(summary), indent=2, ensure_ascii=False, allow_nan=False)
        (temporary / SUMMARY).write_text(text + "\n", encoding="utf-8")
        (temporary / FINDINGS).write_text(findings, encoding="utf-8")
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

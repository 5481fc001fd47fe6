"""A comparison to a folder, which appears only when it is whole."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError
from moefps.io.folders import FolderKind, atomic_folder, check_folder
from moefps.io.table_folders import json_bytes
from moefps.io.tables import table_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from moefps._typing import PathLike
    from moefps.io.tables import TableFormat

__all__ = ["FIGURE_FOLDER", "FINDINGS", "SUMMARY", "TABLE_FOLDER", "check_comparison_folder", "write_comparison_folder"]

SUMMARY = "summary.json"
FINDINGS = "findings.md"
TABLE_FOLDER = "tables"
FIGURE_FOLDER = "figures"

_COMPARISON = FolderKind("comparison", (SUMMARY, TABLE_FOLDER), (FINDINGS, FIGURE_FOLDER))
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def check_comparison_folder(path: PathLike, *, overwrite: bool = False) -> Path:
    """Check, before any work is done, that a comparison can be written: as `check_folder` does."""
    return check_folder(path, _COMPARISON, overwrite=overwrite, argument="output")


def write_comparison_folder(
    path: PathLike,
    tables: Mapping[str, pl.DataFrame],
    summary: Mapping[str, Any],
    findings: str,
    *,
    figures: Mapping[str, bytes] | None = None,
    file_format: TableFormat = "csv",
    overwrite: bool = False,
) -> Path:
    """Write tables, summary, findings and figures.

    Raises
    ------
    ArgumentError
        A figure has no plain name or is no bytes, or the format is another.
    FileError
        As `atomic_folder`; nothing is left then, and what was there before stays.
    """
    if file_format not in {"csv", "parquet"}:
        raise ArgumentError(f"file_format: {file_format!r}; accepted: 'csv', 'parquet'")
    drawn: dict[Any, Any] = dict(figures or {})
    for name, data in drawn.items():
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
            raise ArgumentError(f"figures: the name {name!r}; accepted: plain names of files, such as tv_curve.png")
        if not isinstance(data, bytes):
            raise ArgumentError(f"figures: {name} is a {type(data).__name__}; accepted: bytes")
    with atomic_folder(path, _COMPARISON, overwrite=overwrite) as folder:
        (folder / TABLE_FOLDER).mkdir()
        for name, table in tables.items():
            (folder / TABLE_FOLDER / f"{name}.{file_format}").write_bytes(table_bytes(table, file_format))
        (folder / SUMMARY).write_bytes(json_bytes(summary))
        (folder / FINDINGS).write_bytes(findings.encode())
        if drawn:
            (folder / FIGURE_FOLDER).mkdir()
        for name, data in drawn.items():
            (folder / FIGURE_FOLDER / name).write_bytes(data)
    return Path(os.path.realpath(path))

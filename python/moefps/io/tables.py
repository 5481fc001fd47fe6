"""Tables to files: csv, json, parquet, or the bare indices as .npy."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from moefps.errors import ArgumentError
from moefps.io.atomic import atomic_file
from moefps.io.paths import check_path

if TYPE_CHECKING:
    import polars as pl

    from moefps._typing import PathLike

__all__ = ["TableFormat", "table_bytes", "table_format", "write_table"]

TableFormat: TypeAlias = Literal["csv", "json", "parquet", "npy"]

FORMATS: dict[str, TableFormat] = {"csv": "csv", "json": "json", "parquet": "parquet", "npy": "npy"}


def table_format(path: PathLike, fallback: str | None = None) -> TableFormat:
    """Tell the format of a table file by its suffix.

    Parameters
    ----------
    path : path
        The file's name.
    fallback : str, optional
        The format where the suffix says nothing.

    Raises
    ------
    ArgumentError
        Neither the suffix nor `fallback` names a format.

    Examples
    --------
    >>> table_format("sel.CSV"), table_format("sel", "json")
    ('csv', 'json')
    """
    suffix = Path(check_path(path)).suffix.lower()
    found = FORMATS.get(suffix[1:]) or FORMATS.get(fallback or "")
    if found is not None:
        return found
    accepted = ", ".join("." + name for name in FORMATS)
    raise ArgumentError(f"{path}: the suffix is {suffix or 'missing'}; accepted: {accepted}")


def table_bytes(frame: pl.DataFrame, file_format: TableFormat, *, npy_column: str = "index") -> bytes:
    """Encode a table.

    Parameters
    ----------
    frame : polars.DataFrame
        The table.
    file_format : {"csv", "json", "parquet", "npy"}
        ``json`` is a list of one object a row; ``npy`` holds one column alone.
    npy_column : str
        The column that ``npy`` holds.
    """
    if file_format == "json":
        # polars leaves out the final newline, which terminals and diff want.
        return frame.write_json().encode() + b"\n"
    if file_format == "csv":
        return _flat(frame).write_csv().encode()
    buffer = io.BytesIO()
    if file_format == "parquet":
        frame.write_parquet(buffer)
    else:
        np.save(buffer, frame[npy_column].to_numpy(), allow_pickle=False)
    return buffer.getvalue()


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Write lists and structures as JSON text, as a .csv has no place for them."""
    import polars as pl

    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = {
        name: [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in frame[name].to_list()]
        for name in nested
    }
    return frame.with_columns(pl.Series(name, values, dtype=pl.String) for name, values in texts.items())


def write_table(
    frame: pl.DataFrame,
    path: PathLike,
    *,
    file_format: TableFormat | None = None,
    overwrite: bool = False,
    npy_column: str = "index",
) -> None:
    """Write a table to a file that appears only when it is whole.

    Parameters
    ----------
    frame : polars.DataFrame
        The table.
    path : path
        The file.
    file_format : {"csv", "json", "parquet", "npy"}, optional
        How to write it; by the suffix when not given.
    overwrite : bool
        True replaces a file that exists.
    npy_column : str
        The column that a .npy holds, alone.

    Raises
    ------
    ArgumentError
        The suffix is unknown and no format is given.
    FileError
        The file cannot be written; nothing is left then.

    Examples
    --------
    >>> import numpy as np, polars as pl, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "sel.npy"
    >>> write_table(pl.DataFrame({"rank": [1, 2], "index": [7, 3]}), path)
    >>> np.load(path).tolist()
    [7, 3]
    """
    # Encoded whole first: polars gives a full disk names of its own.
    data = table_bytes(frame, file_format or table_format(path), npy_column=npy_column)
    with atomic_file(path, overwrite=overwrite) as file:
        file.write(data)

"""Tables from files that were written here: the same columns, types and nulls again."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps.errors import FileError
from moefps.io.files import read_bytes
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moefps._typing import PathLike

__all__ = ["FORMATS", "find_table", "read_json_object", "read_table"]

FORMATS = ("csv", "json", "parquet")
"""How tables are written; also the suffixes."""

_TRUTH = {"true": True, "false": False}


def read_table(
    path: PathLike,
    columns: Mapping[str, Any],
    *,
    optional: Mapping[str, Any] | None = None,
    others: bool = False,
    infinite: Collection[str] = (),
    accepted: str = "",
) -> pl.DataFrame:
    r"""Read a table with the types that it was written with.

    Parameters
    ----------
    path : path
        A ``.csv``, ``.json`` (a list of one object a row) or ``.parquet``.
    columns : mapping of str to polars type
        What must be there: integers, floats, booleans or text.
    optional : mapping of str to polars type, optional
        What may be there.
    others : bool
        True takes further columns as they are found; False refuses them.
    infinite : collection of str
        Columns of floats that may be infinite; in no other of `columns` and `optional`, and NaN is nowhere accepted.
    accepted : str
        What the file should be, for messages that would not say it.

    Returns
    -------
    polars.DataFrame
        The columns in the order of the file.

    Raises
    ------
    FileError
        The file is missing or not what its suffix says, a row of a .csv has not all columns, a column is missing or
        one too many, or a value is not of its column's type.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "layers.csv"
    >>> _ = path.write_text("layer,tv,reason\n0,0.5,\n1,,no token\n")
    >>> read_table(path, {"layer": pl.Int64, "tv": pl.Float64, "reason": pl.String}).rows()
    [(0, 0.5, None), (1, None, 'no token')]
    """
    name = check_path(path)
    suffix = Path(path).suffix.lower()[1:]
    if suffix not in FORMATS:
        raise FileError(f"{name}: the suffix is {suffix or 'missing'}; accepted: {', '.join(FORMATS)}")
    data = read_bytes(path)
    try:
        read = {"csv": _from_csv, "json": _from_json, "parquet": _from_parquet}[suffix]
        frame = read(data, _Columns(columns, optional or {}, others))
        _check_numbers(frame, {*columns, *(optional or {})}, infinite)
    except FileError as error:
        text = str(error)
    # What polars and json raise on damaged files has many classes.
    except (pl.exceptions.PolarsError, ValueError, TypeError, OverflowError, RecursionError, OSError) as error:
        text = f"cannot be read as {suffix}: {_line(error)}"
    else:
        return frame
    tail = f"; accepted: {accepted}" if accepted and "; accepted: " not in text else ""
    raise FileError(f"{name}: {text}{tail}")


def find_table(folder: PathLike, name: str) -> Path | None:
    """Find a table of a folder, in whatever format it was written.

    Raises
    ------
    FileError
        It is there in two formats.
    """
    found = [Path(folder) / f"{name}.{suffix}" for suffix in FORMATS if (Path(folder) / f"{name}.{suffix}").is_file()]
    if len(found) > 1:
        raise FileError(f"{os.fspath(folder)}: holds {found[0].name} and {found[1].name}; accepted: one of them")
    return found[0] if found else None


def read_json_object(path: PathLike) -> dict[str, Any]:
    """Read a ``.json`` that holds one object.

    Raises
    ------
    FileError
        The file is missing, or holds something else.
    """
    name = os.fspath(path)
    try:
        found = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{name}: cannot be read as json: {_line(error)}") from None
    if not isinstance(found, dict):
        raise FileError(f"{name}: holds a {type(found).__name__}; accepted: an object")
    return found


@dataclass(frozen=True)
class _Columns:
    """What a table must have and may have."""

    needed: Mapping[str, Any]
    optional: Mapping[str, Any]
    others: bool

    def types(self, found: Iterable[str]) -> dict[str, Any]:
        """Give the types of the columns that are known; one that is missing or too many is refused."""
        there = list(found)
        missing = next((name for name in self.needed if name not in there), None)
        if missing is not None:
            raise FileError(f"has no column {missing}")
        known = {**self.needed, **self.optional}
        more = next((name for name in there if name not in known), None)
        if more is not None and not self.others:
            raise FileError(f"has a column {more!r}; accepted: {', '.join(known)}")
        return {name: known[name] for name in there if name in known}


def _from_csv(data: bytes, columns: _Columns) -> pl.DataFrame:
    if not data.strip():
        raise FileError("is empty")
    _check_rows(data)
    # By name, never by place: a column too many would shift all that follow.
    text = pl.read_csv(io.BytesIO(data), infer_schema=False)
    types = columns.types(text.columns)
    typed = text.with_columns(_of_text(text[name], dtype) for name, dtype in types.items())
    more = [name for name in text.columns if name not in types]
    if not more:
        return typed
    found = pl.read_csv(io.BytesIO(data), columns=more, infer_schema_length=None)
    return typed.with_columns(found.select(more))


def _check_rows(data: bytes) -> None:
    """Refuse rows without all columns, which polars would fill with nulls, and a last one that has no end."""
    rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    start, wanted = 1, 0
    # A text may be long; the limit is of all readers, so it is put back.
    limit = csv.field_size_limit(len(data))
    try:
        for row in rows:
            # The only column's empty value is an empty line.
            found = max(1, len(row))
            wanted = wanted or found
            if found != wanted:
                raise FileError(f"line {start} has {found:,} of {wanted:,} columns; accepted: all of them, and no more")
            start = rows.line_num + 1
    except csv.Error as error:
        raise FileError(f"line {start}: {error}; accepted: whole lines of csv") from None
    finally:
        csv.field_size_limit(limit)
    if not data.endswith(b"\n"):
        raise FileError(f"line {rows.line_num} has no end, as if the file were cut; accepted: whole lines")


def _check_numbers(frame: pl.DataFrame, names: Collection[str], infinite: Collection[str]) -> None:
    for column in frame:
        if column.name not in names or not column.dtype.is_float():
            continue
        bad = column.filter(column.is_nan() if column.name in infinite else ~column.is_finite())
        if len(bad):
            raise FileError(f"column {column.name} has '{bad[0]}'; accepted: finite numbers, or nothing")


def _of_text(text: pl.Series, dtype: Any) -> pl.Series:
    if dtype == pl.Boolean:
        typed = text.replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
    else:
        typed = text.cast(dtype, strict=False)
    bad = text.filter(typed.is_null() & text.is_not_null())
    if len(bad):
        raise FileError(f"column {text.name} has {bad[0][:40]!r}; accepted: {_words(dtype)}, or nothing")
    return typed


def _from_json(data: bytes, columns: _Columns) -> pl.DataFrame:
    rows = json.loads(data)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise FileError("is no list of one object a row")
    if not rows:
        # An empty table has no columns in this format.
        return pl.DataFrame(schema=dict(columns.needed))
    types = columns.types(rows[0])
    uneven = next((i for i, row in enumerate(rows) if row.keys() != rows[0].keys()), None)
    if uneven is not None:
        raise FileError(f"row {uneven} has other columns than row 0")
    return pl.DataFrame([_of_json(name, [row[name] for row in rows], types.get(name)) for name in rows[0]])


def _of_json(name: str, values: list[Any], dtype: Any) -> pl.Series:
    try:
        return pl.Series(name, values, dtype=dtype, strict=dtype is not None)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        raise FileError(f"column {name} has a value of another kind; accepted: {_words(dtype)}, or null") from None


def _from_parquet(data: bytes, columns: _Columns) -> pl.DataFrame:
    frame = pl.read_parquet(io.BytesIO(data))
    for name, dtype in columns.types(frame.columns).items():
        found = frame.schema[name]
        if found != dtype and not (found.is_integer() and dtype.is_integer()):
            raise FileError(f"column {name} is of {found}; accepted: {_words(dtype)}")
    return frame


def _words(dtype: Any) -> str:
    if dtype == pl.String:
        return "text"
    return "whole numbers" if dtype.is_integer() else "true or false" if dtype == pl.Boolean else "numbers"


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]

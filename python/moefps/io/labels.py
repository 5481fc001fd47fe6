"""Labels of samples, from a .csv, .txt or .npy file, or from a column of a dump."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, DataError, DtypeError, FileError, ShapeError
from moefps.io.files import read_text
from moefps.io.npy import open_npy
from moefps.io.paths import check_path

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

    from moefps._typing import PathLike

__all__ = ["labels_of_column", "read_labels"]


def read_labels(path: PathLike, n_samples: int) -> npt.NDArray[Any]:
    r"""Read one label for every sample.

    Parameters
    ----------
    path : path
        A .csv with a column ``label`` (or a single column), a .txt with one label a line, or a .npy of [N] integers
        or text.
    n_samples : int
        How many labels there must be, N.

    Returns
    -------
    ndarray of shape [N]
        Text, or integers where the file is a .npy of integers.

    Raises
    ------
    FileError
        The file is missing, not readable, or has no column ``label``.
    ShapeError
        There are not `n_samples` labels.
    DataError
        A label is empty.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels.txt"
    >>> _ = path.write_text("law\nlaw\nintent\n")
    >>> read_labels(path, 3).tolist()
    ['law', 'law', 'intent']
    """
    name = check_path(path)
    suffix = Path(name).suffix.lower()
    labels: npt.NDArray[Any]
    if suffix == ".npy":
        labels = open_npy(path, kinds="iuU", ndim=(1,), layout="[N]")
    elif suffix == ".csv":
        labels = np.array(_read_csv(name), dtype=np.str_)
    elif suffix == ".txt":
        labels = np.array(_read_text(name).splitlines(), dtype=np.str_)
    else:
        raise FileError(f"{name}: labels have the suffix {suffix or 'none'!r}; accepted: .csv, .txt, .npy")
    if len(labels) != n_samples:
        raise ShapeError(f"{name}: found {len(labels):,} labels, expected one for each of {n_samples:,} samples")
    if labels.dtype.kind == "U" and (labels == "").any():
        raise DataError(f"{name}: label {int(np.argmax(labels == '')) + 1} is empty")
    return labels


def labels_of_column(rows: pl.DataFrame, column: str, source: str) -> npt.NDArray[Any]:
    """Take a column of a dump's samples as labels.

    Parameters
    ----------
    rows : polars.DataFrame
        A row a fingerprint, with the sample's columns.
    column : str
        The column; text, integers or true and false.
    source : str
        The dump, for messages.

    Returns
    -------
    ndarray of shape [N]

    Raises
    ------
    ArgumentError
        There is no such column.
    DtypeError
        It holds something else.
    DataError
        A sample has no value there.

    Examples
    --------
    >>> import polars as pl
    >>> labels_of_column(pl.DataFrame({"domain": ["law", "code"]}), "domain", "d.dump").tolist()
    ['law', 'code']
    """
    import polars as pl

    if column not in rows.columns:
        raise ArgumentError(f"{source}: has no column {column!r}; accepted: {', '.join(rows.columns)}")
    values = rows[column]
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if not (values.dtype.is_integer() or values.dtype in {pl.String, pl.Boolean}):
        raise DtypeError(f"{source}: column {column!r} is {values.dtype}; accepted: text, integers, true and false")
    if values.null_count():
        row = int(values.is_null().arg_true()[0])
        sample = rows["sample"][row] if "sample" in rows.columns else row
        raise DataError(f"{source}: column {column!r} is empty at sample {sample}; accepted: a label for every sample")
    return np.array(values.to_list())


def _read_text(name: str) -> str:
    return read_text(name, "a file of labels")


def _read_csv(name: str) -> list[str]:
    """Read the column ``label``, or the only column there is."""
    try:
        rows = [row for row in csv.reader(io.StringIO(_read_text(name), newline=""), strict=True) if row]
    except csv.Error as error:
        raise FileError(f"{name}: is not a .csv: {error}") from error
    if not rows:
        raise FileError(f"{name}: the file is empty, expected a header and a row for every sample")
    header = [column.strip() for column in rows[0]]
    if "label" in header:
        column = header.index("label")
    elif len(header) == 1:
        column = 0
    else:
        raise FileError(f"{name}: has the columns {', '.join(header)}, expected one named label")
    short = next((i for i, row in enumerate(rows) if len(row) <= column), None)
    if short is not None:
        raise FileError(f"{name}: row {short} has {len(rows[short])} columns, expected {len(header)}")
    return [row[column].strip() for row in rows[1:]]

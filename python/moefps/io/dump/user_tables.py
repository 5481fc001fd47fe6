"""The tables of a dump that users have columns in: samples.parquet and tokens.parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

__all__ = ["SAMPLE_COLUMNS", "as_frame", "check_sample_columns", "sample_table", "token_table"]

SAMPLE_COLUMNS = ("sample", "token_start", "n_tokens")
"""The columns of samples.parquet that are not the user's."""


def as_frame(name: str, given: pl.DataFrame | Mapping[str, Any], n_rows: int) -> pl.DataFrame:
    """Take a table as people pass it: a DataFrame, or columns by name.

    Raises
    ------
    DtypeError
        It is something else, or a column is made of what no table holds.
    ShapeError
        It has not `n_rows` rows.
    """
    import polars as pl

    if isinstance(given, Mapping):
        try:
            given = pl.DataFrame(dict(given))
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise DtypeError(f"{name}: is no table: {str(error).splitlines()[0][:120]}") from None
    if not isinstance(given, pl.DataFrame):
        raise DtypeError(f"{name}: {type(given).__name__}; accepted: a polars DataFrame, or columns by name")
    odd = next((column for column, dtype in given.schema.items() if dtype == pl.Object), None)
    if odd is not None:
        raise DtypeError(f"{name}: column {odd!r} holds Python objects; accepted: numbers, text, lists of them")
    if given.width and given.height != n_rows:
        raise ShapeError(f"{name}: {given.height:,} rows; accepted: one for each of {n_rows:,}")
    return given


def check_sample_columns(samples: pl.DataFrame | Mapping[str, Any] | None, n_samples: int) -> pl.DataFrame | None:
    """Take the user's own columns of samples, of which none has a name that the dump gives itself.

    Raises
    ------
    ArgumentError
        A column is named ``sample``, ``token_start`` or ``n_tokens``.
    DtypeError, ShapeError
        As `as_frame`.
    """
    if samples is None:
        return None
    frame = as_frame("samples", samples, n_samples)
    taken = next((name for name in SAMPLE_COLUMNS if name in frame.columns), None)
    if taken is not None:
        raise ArgumentError(f"samples: the column {taken!r} is one that every dump makes; accepted: other names")
    return frame if frame.width else None


def sample_table(starts: npt.NDArray[np.int64], own: pl.DataFrame | None) -> pl.DataFrame:
    """Make samples.parquet: a row a sample, with where its tokens start and how many it has.

    Parameters
    ----------
    starts : ndarray of int64 [N + 1]
        First token of each sample, and T.
    own : polars.DataFrame, optional
        The user's columns; columns of the dump's own are checked and left out.

    Raises
    ------
    DataError
        A column of the dump's own says something else than `starts`.
    """
    import polars as pl

    n_samples = len(starts) - 1
    frame = pl.DataFrame({"sample": np.arange(n_samples), "token_start": starts[:-1], "n_tokens": np.diff(starts)})
    return frame if own is None else _join("samples", frame, own)


def token_table(starts: npt.NDArray[np.int64], own: pl.DataFrame) -> pl.DataFrame:
    """Make tokens.parquet: a row a token, with its sample and its position there.

    Parameters
    ----------
    starts : ndarray of int64 [N + 1]
        First token of each sample, and T.
    own : polars.DataFrame
        Further columns; ``position`` counts from 0 in each sample where it is not among them.

    Raises
    ------
    DataError
        The column ``sample`` is there and says something else than `starts`.
    """
    import polars as pl

    lengths = np.diff(starts)
    frame = pl.DataFrame({"sample": np.repeat(np.arange(len(lengths)), lengths)})
    if "position" not in own.columns:
        position = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        frame = frame.with_columns(pl.Series("position", position.astype(np.int32)))
    return _join("tokens", frame, own)


def _join(name: str, frame: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """Put the user's columns beside the dump's, and check those that both have."""
    for column in frame.columns:
        if column not in own.columns:
            continue
        same = own[column].dtype.is_integer() and (own[column] == frame[column]).fill_null(value=False)
        if same is False or not same.all():
            where = "" if same is False else f" at row {int((~same).arg_true()[0])}"
            raise DataError(f"{name}: the column {column!r} does not agree with the offsets{where}")
    import polars as pl

    return pl.concat([frame, own.drop(frame.columns, strict=False)], how="horizontal")

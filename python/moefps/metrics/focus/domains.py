"""The domain of each token: from a column of a dump, or from labels that people pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError
from moefps.metrics.grouping import find_groups

if TYPE_CHECKING:
    from moefps.io import Dump

__all__ = ["Domains", "domains_of_dump", "domains_of_labels"]


@dataclass(frozen=True, eq=False)
class Domains:
    """A domain for each token.

    Attributes
    ----------
    name : str
        The column that they come from, or ``labels``.
    values : polars.Series [D]
        The domains, ascending.
    codes : ndarray of uint32 [T]
        The domain of each token.
    """

    name: str
    values: pl.Series
    codes: npt.NDArray[np.uint32]


def domains_of_dump(dump: Dump, by: str | npt.ArrayLike) -> Domains:
    """Tell the domain of each token of a dump.

    Parameters
    ----------
    dump : Dump
        The dump.
    by : str or array-like [N] or [T]
        A column of the samples or of the tokens; or a label for each sample, or for each token.

    Returns
    -------
    Domains

    Raises
    ------
    ArgumentError
        There is no such column, or there is one domain only.
    DtypeError
        The labels are no text, integers, or true and false.
    DataError
        A sample or token has none.
    ShapeError
        There are as many labels as neither samples nor tokens.
    """
    lengths = np.diff(dump.token_starts)
    if isinstance(by, str):
        groups = find_groups(dump, by)
        if groups.n_without:
            row = int(np.argmax(groups.codes < 0))
            sample = int(np.searchsorted(dump.token_starts, row, side="right")) - 1
            raise DataError(
                f"by: column {by!r} is empty at {groups.n_without:,} of {dump.n_tokens:,} tokens, first at token row "
                f"{row} (sample {sample}); accepted: a value for every token"
            )
        codes = groups.codes if groups.of_tokens else np.repeat(groups.codes, lengths)
        return Domains(by, groups.values, codes.astype(np.uint32))
    values, labels = _encode(by)
    if len(labels) == dump.n_samples == dump.n_tokens and (lengths != 1).any():
        raise ArgumentError(
            f"by: {len(labels):,} labels, for as many samples and tokens; accepted: a column of the dump, which is "
            "clear"
        )
    if len(labels) == dump.n_samples:
        return Domains("labels", values, np.repeat(labels, lengths))
    if len(labels) != dump.n_tokens:
        raise ShapeError(
            f"by: {len(labels):,} labels; accepted: one for each of {dump.n_samples:,} samples, or of "
            f"{dump.n_tokens:,} tokens"
        )
    return Domains("labels", values, labels)


def domains_of_labels(labels: Any, n_tokens: int) -> Domains:
    """Tell the domain of each token from a label for each.

    Parameters
    ----------
    labels : array-like [T]
        Text, integers, or true and false.
    n_tokens : int
        How many there must be, T.

    Raises
    ------
    ArgumentError, DtypeError, DataError, ShapeError
        As `domains_of_dump`.
    """
    if isinstance(labels, str):
        raise ArgumentError(
            f"by: {labels!r} names a column of a dump, and activations are an array; accepted: a label for each of "
            f"{n_tokens:,} tokens"
        )
    values, codes = _encode(labels)
    if len(codes) != n_tokens:
        raise ShapeError(f"by: {len(codes):,} labels; accepted: one for each of {n_tokens:,} tokens")
    return Domains("labels", values, codes)


def _encode(labels: Any) -> tuple[pl.Series, npt.NDArray[np.uint32]]:
    """Give the distinct labels, ascending, and which of them each is."""
    accepted = "accepted: text, integers, or true and false"
    found = _as_series(labels, accepted)
    if isinstance(found.dtype, pl.Categorical | pl.Enum):
        found = found.cast(pl.String)
    if found.null_count():
        row = int(found.is_null().arg_true()[0])
        raise DataError(f"by: {found.null_count():,} labels are empty, first at {row}; accepted: a label for each")
    if not (found.dtype.is_integer() or found.dtype in {pl.String, pl.Boolean}):
        raise DtypeError(f"by: labels of {found.dtype}; {accepted}")
    distinct = found.unique().sort()
    if len(distinct) < 2:
        what = f"the one value {distinct[0]!r}" if len(distinct) else "no value"
        raise ArgumentError(f"by: labels have {what}; accepted: at least two domains")
    codes = found.replace_strict(distinct, pl.arange(len(distinct), eager=True), return_dtype=pl.UInt32)
    return distinct.alias("domain"), codes.to_numpy()


def _as_series(labels: Any, accepted: str) -> pl.Series:
    if isinstance(labels, pl.Series):
        return labels
    # numpy would make texts of all where some labels are.
    array = None if isinstance(labels, list | tuple) else np.asarray(labels)
    if array is not None and array.ndim != 1:
        raise ShapeError(f"by: labels of shape {array.shape}; accepted: a label for each sample or token")
    try:
        return pl.Series(labels if array is None else array if array.dtype.kind in "biuf" else array.tolist())
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        raise DtypeError(f"by: labels of several kinds; {accepted}") from None

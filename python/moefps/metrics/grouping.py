"""Which tokens belong together: groups by a column of a dump, and units that a bootstrap draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.errors import ArgumentError, DataError, DtypeError

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray
    from moefps.io import Dump

__all__ = ["Cells", "Groups", "find_groups", "make_cells"]

_OWN = ("sample", "token_start", "n_tokens", "position")
MOST_UNITS = 1 << 14
"""Units that a bootstrap draws, at most."""
MOST_COUNTERS = 1 << 24
"""Counters of experts for all units together, at most: some 40 bytes each."""


@dataclass(frozen=True, eq=False)
class Groups:
    """A group for each sample or token.

    Attributes
    ----------
    column : str
        The column that they come from.
    values : polars.Series [G]
        The value of each group, ascending.
    codes : ndarray of int64 [N] or [T]
        The group of each sample or token; -1 for a token without a value.
    of_tokens : bool
        Whether `codes` has one for each token.
    n_without : int
        Tokens without a value.
    """

    column: str
    values: pl.Series
    codes: IndexArray
    of_tokens: bool
    n_without: int = 0


@dataclass(frozen=True, eq=False)
class Cells:
    """Sets of tokens that are counted apart: what each group has of each unit.

    Attributes
    ----------
    codes : ndarray of uint32 [T] or None
        The cell of each token; `n_cells` for one that is in none. None where there is one cell of all tokens.
    n_cells : int
        How many there are, C; one more is counted where tokens are in none.
    group : ndarray of int64 [C]
        The group of each cell, ascending.
    has_outside : bool
        Whether there are tokens in no cell.
    samples_per_unit : int
        Consecutive samples in a unit.
    """

    codes: npt.NDArray[np.uint32] | None
    n_cells: int
    group: IndexArray
    has_outside: bool = False
    samples_per_unit: int = 1


def find_groups(dump: Dump, by: str) -> Groups:
    """Take a column of the samples, or else of the tokens, as groups.

    Parameters
    ----------
    dump : Dump
        The dump.
    by : str
        The column's name.

    Returns
    -------
    Groups

    Raises
    ------
    ArgumentError
        There is no such column, or it has one value only.
    DtypeError
        It holds something else than text, integers, or true and false.
    DataError
        A sample has no value there, or no token has.
    """
    if not isinstance(by, str):
        raise ArgumentError(f"by: {by!r}; accepted: the name of a column, or None")
    of_samples = [name for name in dump.samples.columns if name not in _OWN]
    if by in {*of_samples, "sample"}:
        values, of_tokens = dump.samples[by], False
    else:
        tokens = dump.tokens
        of_token = [] if tokens is None else [name for name in tokens.columns if name not in _OWN]
        if tokens is None or by not in of_token:
            there = ", ".join(dict.fromkeys(["sample", *of_samples, *of_token]))
            raise ArgumentError(f"by: {dump.path} has no column {by!r}; accepted: {there}")
        values, of_tokens = tokens[by], True
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if not (values.dtype.is_integer() or values.dtype in {pl.String, pl.Boolean}):
        raise DtypeError(f"by: column {by!r} is {values.dtype}; accepted: text, integers, true and false")
    n_without = values.null_count()
    if n_without and not of_tokens:
        row = int(values.is_null().arg_true()[0])
        raise DataError(f"by: column {by!r} is empty at sample {row}; accepted: a value for every sample")
    distinct = values.drop_nulls().unique().sort()
    if len(distinct) < 2:
        found = f"the one value {distinct[0]!r}" if len(distinct) else "no value"
        raise ArgumentError(f"by: column {by!r} has {found}; accepted: a column of at least two")
    codes = values.replace_strict(distinct, pl.arange(len(distinct), eager=True), default=-1, return_dtype=pl.Int64)
    return Groups(by, distinct.alias("group"), codes.fill_null(-1).to_numpy(), of_tokens, n_without)


def make_cells(dump: Dump, groups: Groups | None, *, resample: bool, counters: int) -> Cells:
    """Say which tokens are counted apart.

    Parameters
    ----------
    dump : Dump
        The dump.
    groups : Groups or None
        None for all tokens together.
    resample : bool
        Whether each sample, or block of consecutive samples, is needed apart.
    counters : int
        Counters that each cell takes, L · E.

    Returns
    -------
    Cells

    Raises
    ------
    ArgumentError
        There are more groups than counters can be held for.
    """
    lengths = np.diff(dump.token_starts)
    n_groups = 1 if groups is None else len(groups.values)
    if n_groups * counters > MOST_COUNTERS:
        column = "" if groups is None else groups.column
        raise ArgumentError(
            f"by: column {column!r} has {n_groups:,} values, which takes {n_groups * counters:,} counters; "
            f"accepted: up to {MOST_COUNTERS:,}, or fewer layers"
        )
    if not resample:
        if groups is None:
            return Cells(None, 1, np.zeros(1, dtype=np.int64))
        codes = groups.codes if groups.of_tokens else np.repeat(groups.codes, lengths)
        return _cells(codes, np.arange(n_groups), n_groups)
    per_unit = 1
    while True:
        unit, codes, cell_group, n_cells = _units(groups, lengths, per_unit)
        if n_cells <= max(MOST_UNITS, n_groups) and n_cells * counters <= MOST_COUNTERS:
            break
        if int(unit.max(initial=0)) == 0:
            break
        per_unit *= 2
    if not (groups is not None and groups.of_tokens):
        codes = np.repeat(codes, lengths)
    return _cells(codes, cell_group, n_cells, per_unit)


def _units(groups: Groups | None, lengths: IndexArray, per_unit: int) -> tuple[IndexArray, IndexArray, IndexArray, int]:
    """Cut samples into units of so many of one group; give the unit and cell of each sample or token."""
    n_samples = len(lengths)
    if groups is None:
        unit = np.arange(n_samples) // per_unit
        n_cells = int(unit[-1]) + 1 if n_samples else 1
        return unit, unit, np.zeros(n_cells, dtype=np.int64), n_cells
    if not groups.of_tokens:
        # The place of each sample among those of its group.
        order = np.argsort(groups.codes, kind="stable")
        sizes = np.bincount(groups.codes, minlength=len(groups.values))
        place = np.empty(n_samples, dtype=np.int64)
        place[order] = np.arange(n_samples) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        unit = place // per_unit
        label = groups.codes
    else:
        unit = np.repeat(np.arange(n_samples) // per_unit, lengths)
        label = groups.codes
    both = np.where(label < 0, -1, label * (int(unit.max(initial=0)) + 1) + unit)
    distinct, cell = np.unique(both, return_inverse=True)
    skipped = int(len(distinct) > 0 and distinct[0] < 0)
    cell_group = distinct[skipped:] // (int(unit.max(initial=0)) + 1)
    return unit, cell.reshape(-1) - skipped, cell_group, len(distinct) - skipped


def _cells(codes: npt.NDArray[Any], group: IndexArray, n_cells: int, per_unit: int = 1) -> Cells:
    outside = codes < 0
    has_outside = bool(outside.any())
    if has_outside:
        codes = np.where(outside, n_cells, codes)
    return Cells(codes.astype(np.uint32), n_cells, group, has_outside, per_unit)

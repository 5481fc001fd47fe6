"""Tables of picks: a row a pick of a selection, to be written and read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from moefps.errors import FileError
from moefps.io.table_reading import FORMATS, read_table

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray, PathLike

__all__ = ["pick_table", "read_picks"]

_NEEDED = {"rank": pl.Int64(), "index": pl.Int64(), "radius": pl.Float64(), "cluster_size": pl.Int64()}
_OPTIONAL = {"typicality": pl.Float64()}
_ACCEPTED = "the picks that `moefps select -o` wrote"


class Picked(Protocol):
    """What a selection has, as far as its table needs it."""

    @property
    def indices(self) -> IndexArray: ...
    @property
    def radii(self) -> Float64Array: ...
    @property
    def cluster_sizes(self) -> IndexArray: ...


def pick_table(
    selection: Picked,
    typicality: Float64Array | None = None,
    *,
    names: tuple[str, ...] | None = None,
    labels: npt.NDArray[Any] | None = None,
    rows: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Put picks into a table, one row a pick; a dump's column with a name of ours gets ``sample_`` before it.

    Parameters
    ----------
    selection : Selection
        The picks.
    typicality : ndarray of shape [N], optional
        Percentile of every sample.
    names : tuple of str, optional
        A name for every sample.
    labels : ndarray of shape [N], optional
        A label for every sample.
    rows : polars.DataFrame, optional
        A dump's own columns, a row a fingerprint.

    Returns
    -------
    polars.DataFrame
        ``rank`` (from 1), ``index``, perhaps ``name`` and ``label``, ``radius``, ``cluster_size``, perhaps
        ``typicality``, and the columns of `rows`.
    """
    indices = selection.indices
    columns: dict[str, Any] = {"rank": range(1, len(indices) + 1), "index": indices}
    if names is not None:
        columns["name"] = [names[i] for i in indices]
    if labels is not None:
        columns["label"] = labels[indices].tolist()
    columns |= {"radius": selection.radii, "cluster_size": selection.cluster_sizes}
    if typicality is not None:
        columns["typicality"] = typicality[indices]
    frame = pl.DataFrame(columns)
    if rows is None:
        return frame
    own = rows[indices]
    if rows["sample"].equals(pl.int_range(rows.height, eager=True).rename("sample")):
        # Where every sample has one fingerprint, the index says which it is.
        own = own.drop("sample", "window_start")
    taken = {*columns, "name", "label"}
    renamed = {}
    for name in own.columns:
        free = name
        while free in taken:
            free = f"sample_{free}"
        taken.add(free)
        renamed[name] = free
    return pl.concat([frame, own.rename(renamed)], how="horizontal")


def read_picks(path: PathLike) -> pl.DataFrame:
    r"""Read the picks that `moefps select -o` wrote.

    Parameters
    ----------
    path : path
        A ``.csv``, ``.json`` or ``.parquet``; a ``.npy`` has indices alone, which is too little.

    Returns
    -------
    polars.DataFrame
        As `pick_table` gives it; the samples' own columns have the types that they are found to have.

    Raises
    ------
    FileError
        The file is missing, damaged or none of picks.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "sel.csv"
    >>> _ = path.write_text("rank,index,radius,cluster_size,domain\n1,7,2.5,3,law\n2,0,1.0,1,code\n")
    >>> read_picks(path)["domain"].to_list()
    ['law', 'code']
    """
    name = os.fspath(path)
    if Path(path).suffix.lower()[1:] not in FORMATS:
        raise FileError(f"{name}: is no file of picks; accepted: a .csv, .json or .parquet, {_ACCEPTED}")
    picks = read_table(path, _NEEDED, optional=_OPTIONAL, others=True, accepted=_ACCEPTED)
    if not picks.height:
        raise FileError(f"{name}: has no row; accepted: {_ACCEPTED}")
    for column in _NEEDED:
        good = pl.col(column).is_not_null() & pl.col(column).is_finite() & (pl.col(column) >= 0)
        bad = picks.select((~good).fill_null(value=True).arg_true())[column]
        if len(bad):
            value = picks[column][int(bad[0])]
            raise FileError(f"{name}: row {bad[0]} (from 0) has {value} for {column}; accepted: numbers of at least 0")
    if not picks["rank"].equals(pl.int_range(1, picks.height + 1, eager=True).rename("rank")):
        raise FileError(f"{name}: the ranks are not 1 to {picks.height:,} in order; accepted: {_ACCEPTED}")
    rises = (picks["radius"].diff() > 0).arg_true()
    if len(rises):
        rank = int(rises[0])
        rise = f"from {picks['radius'][rank - 1]} at rank {rank:,} to {picks['radius'][rank]}"
        raise FileError(f"{name}: the radius rises {rise}; accepted: {_ACCEPTED}, whose radius never does")
    return picks

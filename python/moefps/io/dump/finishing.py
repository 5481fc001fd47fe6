"""From a dump that is being written to one that is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.io.dump.folders import MANIFEST, SAMPLES, TOKENS, WRITING, read_manifest, replace_file, sync_folder
from moefps.io.dump.manifest_json import serialise_manifest
from moefps.io.dump.storage import BlockFile
from moefps.io.dump.user_tables import sample_table, token_table
from moefps.io.tables import table_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt
    import polars as pl

    from moefps.io.dump.header import DumpHeader

__all__ = ["finish_dump", "runs"]


def finish_dump(
    folder: Path,
    header: DumpHeader,
    files: Mapping[str, BlockFile],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    samples: pl.DataFrame | None,
) -> None:
    """Make a dump complete of which every sample is written; after a crash here it can be done again.

    Parameters
    ----------
    folder : Path
        The dump.
    header : DumpHeader
        What it was begun with.
    files : mapping of str to BlockFile
        The arrays and token columns; arrays that have been moved together already are not among them.
    starts : ndarray of int64 [N + 1]
        Where each sample's rows are in `files`.
    lengths : ndarray of int64 [N]
        How many of them it has.
    samples : polars.DataFrame, optional
        The samples' own columns.
    """
    final = np.concatenate([[0], np.cumsum(lengths)])
    n_tokens = int(final[-1])
    if n_tokens < starts[-1]:
        for name in header.token_arrays:
            if name in files:
                _move_together(folder, files[name], starts, lengths)
    columns = {name: _rows(files[name], starts, lengths) for name in header.token_columns()}
    tokens = token_table(final, _token_frame(header, columns))
    replace_file(folder / TOKENS, table_bytes(tokens, "parquet"))
    replace_file(folder / SAMPLES, table_bytes(sample_table(final, samples), "parquet"))
    created = read_manifest(folder).created
    manifest = header.manifest("complete", len(lengths), n_tokens, created)
    sync_folder(folder)
    # Readers take the dump for whole from here on.
    replace_file(folder / MANIFEST, serialise_manifest(manifest))


def runs(
    starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Join neighbouring samples that have no gap between them.

    Returns
    -------
    first, count : ndarray of int64
        Rows of each run, in order; empty samples are in none.

    Examples
    --------
    >>> first, count = runs(np.array([0, 4, 8, 12]), np.array([4, 2, 3]))
    >>> first.tolist(), count.tolist()
    ([0, 8], [6, 3])
    """
    first, count = starts[:-1][lengths > 0], lengths[lengths > 0]
    if not len(first):
        return first, count
    opens = np.concatenate([[True], first[1:] != first[:-1] + count[:-1]])
    return first[opens], np.add.reduceat(count, np.flatnonzero(opens))


def _move_together(
    folder: Path, file: BlockFile, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> None:
    """Replace an array by one without the rows that no sample needed."""
    temporary = folder / WRITING / file.path.name
    # From a finish that was interrupted.
    temporary.unlink(missing_ok=True)
    target = BlockFile(temporary, (int(lengths.sum()), *file.shape[1:]), file.dtype, create=True)
    try:
        place = 0
        for first, count in zip(*runs(starts, lengths), strict=True):
            file.copy_rows(int(first), int(count), target, place)
            place += int(count)
        target.sync()
    finally:
        target.close()
    file.close()
    temporary.replace(file.path)


def _rows(file: BlockFile, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Read a column without the rows that no sample needed."""
    column: npt.NDArray[Any] = np.fromfile(file.path, file.dtype, int(starts[-1]), offset=file.data_start)
    if int(lengths.sum()) == len(column):
        return column
    final = np.concatenate([[0], np.cumsum(lengths)])
    kept: npt.NDArray[Any] = column[np.arange(final[-1]) + np.repeat(starts[:-1] - final[:-1], lengths)]
    return kept


def _token_frame(header: DumpHeader, columns: Mapping[str, npt.NDArray[Any]]) -> pl.DataFrame:
    import polars as pl

    series = []
    for name, column in header.token_columns().items():
        values = pl.Series(name, columns[name])
        if column.names is not None:
            values = pl.Series(name, column.names, dtype=pl.Enum(column.names)).gather(columns[name])
        elif name == "token_id":
            values = pl.select(pl.when(values >= 0).then(values).alias(name)).to_series()
        series.append(values)
    return pl.DataFrame(series)

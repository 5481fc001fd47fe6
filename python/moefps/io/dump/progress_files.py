"""The files that a dump has only while it is being written, in its folder ``writing``."""

from __future__ import annotations

import os
import shutil
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from moefps.errors import DumpError, FileError
from moefps.io import strict_json
from moefps.io.dump.folders import JOURNAL, MANIFEST, SAMPLES, WRITING, read_manifest, replace_file
from moefps.io.dump.header import DumpHeader, header_from_json, header_to_json
from moefps.io.dump.journal import read_journal
from moefps.io.dump.manifest_json import serialise_manifest
from moefps.io.dump.storage import BlockFile, npy_matches
from moefps.io.tables import table_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import polars as pl

    from moefps._typing import PathLike

__all__ = [
    "JOURNAL",
    "begin",
    "check_same",
    "column_path",
    "count_done",
    "open_files",
    "read_lengths",
    "remove",
    "resumable_header",
    "write_whole",
]

HEADER = "header.json"
CAPACITIES = "capacities.npy"


def begin(folder: Path, header: DumpHeader, capacities: npt.NDArray[np.int64], samples: pl.DataFrame | None) -> None:
    """Lay out a dump of which nothing is written yet, in a folder that is empty."""
    writing = folder / WRITING
    writing.mkdir()
    manifest = header.manifest("writing", len(capacities), int(capacities.sum()))
    for file in _files(folder, header, capacities, create=True).values():
        file.sync()
        file.close()
    replace_file(writing / HEADER, strict_json.serialise(header_to_json(header, str(manifest.created))))
    write_whole(writing / CAPACITIES, capacities)
    if samples is not None:
        replace_file(writing / SAMPLES, table_bytes(samples, "parquet"))
    replace_file(folder / MANIFEST, serialise_manifest(manifest))


def check_same(
    folder: Path, name: str, header: DumpHeader, capacities: npt.NDArray[np.int64], samples: pl.DataFrame | None
) -> None:
    """Check that a dump was begun with this header, these capacities and these samples.

    Raises
    ------
    DumpError
        It was not; the message says what differs.
    """
    import polars as pl

    advice = "go on with what it was begun with, or pass --overwrite"
    old = _read_capacities(folder)
    if len(old) != len(capacities):
        raise DumpError(f"{name}: was begun with {len(old):,} samples, now there are {len(capacities):,}; {advice}")
    before = _read_header(folder)
    difference = strict_json.first_difference(before, header_to_json(header, before["manifest"]["created"]))
    if difference is not None:
        raise DumpError(f"{name}: {difference.removeprefix('manifest.')}; {advice}")
    if not np.array_equal(old, capacities):
        i = int(np.argmax(old != capacities))
        raise DumpError(f"{name}: sample {i} was to have {old[i]:,} tokens, now {capacities[i]:,}; {advice}")
    path = folder / WRITING / SAMPLES
    kept = pl.read_parquet(path) if path.is_file() else pl.DataFrame()
    # By way of a file too, as a few dtypes come back as others.
    given = pl.DataFrame() if samples is None else pl.read_parquet(BytesIO(table_bytes(samples, "parquet")))
    if kept.schema != given.schema:
        raise DumpError(f"{name}: the samples had the columns {kept.columns}, now {given.columns}; {advice}")
    changed = next((column for column in kept.columns if not kept[column].equals(given[column])), None)
    if changed is not None:
        raise DumpError(f"{name}: the samples' column {changed!r} has changed; {advice}")


def read_lengths(folder: Path, name: str, capacities: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
    """Read how many tokens each sample has, -1 where it is not whole, and how much of the journal is good."""
    done, good = read_journal(folder / WRITING / JOURNAL, len(capacities))
    lengths = np.full(len(capacities), -1, dtype=np.int64)
    lengths[list(done)] = list(done.values())
    if (lengths > capacities).any():
        raise DumpError(f"{name}: the journal is damaged; pass --overwrite to begin again")
    return lengths, good


def count_done(folder: Path, n_samples: int) -> int:
    """Give how many samples of a half-written dump are whole."""
    try:
        return len(read_journal(folder / WRITING / JOURNAL, n_samples)[0])
    except OSError:
        return 0


def resumable_header(path: PathLike) -> DumpHeader | None:
    """Give the header that a half-written dump was begun with; None where there is no such dump.

    Parameters
    ----------
    path : path
        The dump's folder.

    Raises
    ------
    DumpError
        There is one, but it is damaged.
    """
    from pathlib import Path

    folder = Path(path)
    try:
        if read_manifest(folder).state == "complete":
            return None
    except (FileError, DumpError):
        return None
    return header_from_json(_read_header(folder), str(folder / WRITING / HEADER))


def open_files(
    folder: Path, header: DumpHeader, capacities: npt.NDArray[np.int64], n_final: int | None
) -> dict[str, BlockFile]:
    """Open the arrays and token columns of a half-written dump for writing.

    An array that an interrupted `finish` has moved together already, which shows by its `n_final` rows, is left out.
    """
    return _files(folder, header, capacities, create=False, n_final=n_final)


def write_whole(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a small .npy that is there whole or not at all."""
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    replace_file(path, buffer.getvalue())


def column_path(folder: Path, number: int) -> Path:
    """Give the file of a token column; users name the columns, so the files have numbers."""
    return folder / WRITING / f"column-{number}.npy"


def remove(folder: Path) -> None:
    """Remove what a whole dump no longer needs."""
    shutil.rmtree(folder / WRITING, ignore_errors=True)


def _files(
    folder: Path,
    header: DumpHeader,
    capacities: npt.NDArray[np.int64],
    *,
    create: bool,
    n_final: int | None = None,
) -> dict[str, BlockFile]:
    n_samples, n_tokens = len(capacities), int(capacities.sum())
    files: dict[str, BlockFile] = {}
    wanted: list[tuple[str, Path, tuple[int, ...], np.dtype[Any]]] = []
    for name in header.token_arrays:
        shape = cast("tuple[int, ...]", header.array_shape(name, n_samples, n_tokens))
        wanted.append((name, folder / f"{name}.npy", shape, np.dtype(header.arrays[name])))
    if "fingerprints" in header.arrays:
        shape = cast("tuple[int, ...]", header.array_shape("fingerprints", n_samples, n_tokens))
        wanted.append(("fingerprints", folder / "fingerprints.npy", shape, np.dtype(np.float32)))
    for number, (name, column) in enumerate(header.token_columns().items()):
        wanted.append((name, column_path(folder, number), (n_tokens,), column.dtype))
    try:
        for name, path, shape, dtype in wanted:
            compacted = n_final not in {None, n_tokens} and name in header.token_arrays
            if compacted and npy_matches(path, (n_final or 0, *shape[1:]), dtype):
                continue
            files[name] = BlockFile(path, shape, dtype, create=create)
    except BaseException:
        for file in files.values():
            file.close()
        raise
    return files


def _read_header(folder: Path) -> Any:
    path = folder / WRITING / HEADER
    try:
        return strict_json.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DumpError(f"{os.fspath(path)}: cannot be read; pass --overwrite to begin the dump again") from error


def _read_capacities(folder: Path) -> npt.NDArray[np.int64]:
    path = folder / WRITING / CAPACITIES
    try:
        found: npt.NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DumpError(f"{os.fspath(path)}: cannot be read; pass --overwrite to begin the dump again") from error
    return found

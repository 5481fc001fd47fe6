"""Fingerprints from files: one .npy of [N, L, E], many of [L, E], or a dump."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, DtypeError, FileError, ShapeError
from moefps.io.dump.folders import MANIFEST
from moefps.io.files import unreadable
from moefps.io.npy import STDIN, display_name, open_float_npy
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from moefps._typing import FloatArray, PathLike, Progress

__all__ = ["Fingerprints", "is_dump", "load_fingerprints", "natural_key"]


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Fingerprints and where they came from.

    Attributes
    ----------
    array : ndarray of shape [N, L, E]
        The fingerprints; memory-mapped and read-only where they are one file.
    names : tuple of str or None
        A name for every sample, where every sample was a file of its own.
    source : str
        The file or files, in words.
    kind : str or None
        ``probs``, ``weights`` or ``counts``, where they are those of a dump.
    rows : polars.DataFrame or None
        A row a fingerprint, where they are those of a dump: ``sample``, ``window_start``, ``n_tokens``, and the
        sample's own columns.
    n_dropped : int
        Samples or windows of a dump that have no fingerprint and were left out.
    """

    array: FloatArray
    names: tuple[str, ...] | None
    source: str
    kind: str | None = None
    rows: pl.DataFrame | None = None
    n_dropped: int = 0

    @property
    def n_samples(self) -> int:
        """Number of samples, N."""
        return int(self.array.shape[0])


def load_fingerprints(
    paths: PathLike | Sequence[PathLike],
    *,
    single_layer: bool = False,
    kind: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    drop_empty: bool = False,
    progress: Progress = False,
) -> Fingerprints:
    """Open fingerprints from one file, several files, a glob, a folder, a dump or stdin.

    Parameters
    ----------
    paths : path or sequence of paths
        One .npy of [N, L, E]; or files of [L, E] each, in the order given; or a folder or a glob of such files, in
        natural order of their names (2 before 10); or ``-`` for one .npy on standard input; or the folder of a dump.
    single_layer : bool
        True takes one 2-D file as [N, E] with one layer, and several 1-D files as [E] each.
    kind : {"probs", "weights", "counts"}, optional
        Which fingerprints of a dump; the kind that it holds, else ``weights``, when not given.
    window, stride : int, optional
        A fingerprint for every so many tokens of a dump's samples; see `Dump.fingerprints`.
    drop_empty : bool
        True leaves out samples of a dump that have no fingerprint.
    progress : bool or callable
        Used where fingerprints are computed from a dump.

    Returns
    -------
    Fingerprints
        The array is not checked for its values; whatever computes with it does that.

    Raises
    ------
    FileError
        A file is missing or damaged, or nothing matches.
    ShapeError
        A file has the wrong number of dimensions, or its shape differs from that of the first.
    DtypeError
        A file holds no floats, or its dtype differs from that of the first.
    ArgumentError
        An argument for a dump is given with files, or the other way round.
    DumpError, DataError
        The dump is half-written or damaged, or cannot give these fingerprints.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("s2", "s10", "s1"):
    ...     np.save(folder / f"{name}.npy", np.full((3, 4), 0.25))
    >>> loaded = load_fingerprints(folder)
    >>> loaded.array.shape, loaded.names
    ((3, 3, 4), ('s1', 's2', 's10'))
    """
    listed: Any = paths if isinstance(paths, Iterable) and not isinstance(paths, str) else [paths]
    given = [check_path(path, "paths") for path in listed]
    if not given:
        raise FileError("no file given, expected a .npy of [N, L, E] or files of [L, E]")
    dump = next((path for path in given if is_dump(path)), None)
    if dump is not None:
        if len(given) > 1:
            raise FileError(f"{dump}: is a dump, which cannot be mixed with other inputs")
        if single_layer:
            raise ArgumentError(f"single_layer: means nothing for a dump such as {dump}, leave it out")
        wanted = {"kind": kind, "window": window, "stride": stride, "drop_empty": drop_empty}
        return _load_dump(dump, wanted, progress)
    for name, value in (("kind", kind), ("window", window), ("stride", stride), ("drop_empty", drop_empty or None)):
        if value is not None:
            raise ArgumentError(f"{name}: is for a dump; {given[0]} holds fingerprints as they are")
    if len(given) == 1:
        only = given[0]
        if only == STDIN or (not Path(only).is_dir() and not _is_pattern(only)):
            return _load_one(only, single_layer)
    files: list[str] = []
    for path in given:
        files.extend(_expand(path))
    source = given[0] if len(given) == 1 else f"{len(files)} files"
    return Fingerprints(_stack(files, single_layer), _row_names(files), source)


def is_dump(path: PathLike) -> bool:
    """Tell the folder of a dump, whole or half-written, from a folder of files."""
    return os.fspath(path) != STDIN and Path(path).is_dir() and os.path.lexists(Path(path) / MANIFEST)


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Give a key that sorts numbers inside names by their value.

    Examples
    --------
    >>> sorted(["s10", "s9", "a"], key=natural_key)
    ['a', 's9', 's10']
    """
    parts = re.split(r"([0-9]+)", text.casefold())
    key = [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts if part]
    return key, text


def _load_dump(path: str, wanted: dict[str, Any], progress: Progress) -> Fingerprints:
    from moefps.io.dump.reading import open_dump

    found = open_dump(path).fingerprint_set(**wanted, progress=progress)
    return Fingerprints(found.array, None, path, found.kind, found.rows, found.n_dropped)


def _load_one(path: str, single_layer: bool) -> Fingerprints:
    """Open one file that holds all samples."""
    source = display_name(path)
    if single_layer:
        array = open_float_npy(path, ndim=(2,), layout="[N, E] with --single-layer")
        return Fingerprints(array[:, np.newaxis, :], None, source)
    hint = "[N, L, E], [N, E] with --single-layer, or several files of [L, E]"
    return Fingerprints(open_float_npy(path, ndim=(3,), layout=hint), None, source)


def _is_pattern(path: str) -> bool:
    """Tell a glob from a file whose name happens to hold a bracket."""
    return glob.has_magic(path) and not Path(path).exists()


def _expand(path: str) -> list[str]:
    """Turn one argument into the files it stands for."""
    if path == STDIN:
        raise FileError("stdin: `-` cannot be mixed with other files")
    if Path(path).is_dir():
        try:
            entries = [str(file) for file in Path(path).iterdir() if file.suffix == ".npy" and file.name[0] != "."]
        except OSError as error:
            raise unreadable(path, error) from error
        if not entries:
            raise FileError(f"{path}: the folder holds no .npy file")
        return sorted(entries, key=natural_key)
    if _is_pattern(path):
        # Path.glob takes no absolute pattern.
        matches = [match for match in glob.glob(path, recursive=True) if Path(match).is_file()]  # noqa: PTH207
        if not matches:
            raise FileError(f"{path}: no file matches")
        return sorted(matches, key=natural_key)
    return [path]


def _stack(files: list[str], single_layer: bool) -> FloatArray:
    """Read files of one sample each into one array."""
    layout = "[E] a file with --single-layer" if single_layer else "[L, E] a file where there are several"
    ndim = (1,) if single_layer else (2,)
    first = open_float_npy(files[0], ndim=ndim, layout=layout)
    stacked = np.empty((len(files), *first.shape), dtype=first.dtype)
    for i, file in enumerate(files):
        sample = open_float_npy(file, ndim=ndim, layout=layout)
        if sample.shape != first.shape:
            raise ShapeError(f"{file}: shape is {sample.shape}, expected {first.shape} as in {files[0]}")
        if sample.dtype != first.dtype:
            raise DtypeError(f"{file}: dtype is {sample.dtype}, expected {first.dtype} as in {files[0]}")
        stacked[i] = sample
    return stacked[:, np.newaxis, :] if single_layer else stacked


def _row_names(files: list[str]) -> tuple[str, ...]:
    """Name samples by file stem, or by path where stems repeat."""
    stems = [Path(file).stem for file in files]
    if len(set(stems)) == len(stems):
        return tuple(stems)
    paths = [Path(file).absolute() for file in files]
    if len(set(paths)) < len(paths):
        twice = next(file for file, path in zip(files, paths, strict=True) if paths.count(path) > 1)
        raise FileError(f"{twice}: given twice, each file is one sample")
    top = os.path.commonpath([path.parent for path in paths])
    return tuple(path.relative_to(top).with_suffix("").as_posix() for path in paths)

"""Opening a dump's files without trusting them: every header, shape and offset is checked before anything is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moefps.errors import DumpError, MoefpsError
from moefps.io.dump.folders import SAMPLES, TOKENS, member, read_manifest
from moefps.io.dump.layout import DTYPES, LAYOUTS, array_shape
from moefps.io.dump.manifest import ARRAYS, Manifest
from moefps.io.dump.progress_files import count_done
from moefps.io.dump.storage import npy_matches
from moefps.io.npy import open_npy

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import polars as pl

    from moefps._typing import PathLike

__all__ = ["Opened", "open_files", "read_tokens"]


class Opened(NamedTuple):
    """The parts of a dump, checked but for the values of the arrays."""

    manifest: Manifest
    arrays: dict[str, npt.NDArray[Any]]
    samples: pl.DataFrame
    starts: npt.NDArray[np.int64]
    has_tokens: bool


def open_files(path: PathLike) -> Opened:
    """Open every file of a dump, tokens.parquet but for its size.

    Raises
    ------
    FileError, DumpError, DtypeError, ShapeError
        As `open_dump`.
    """
    folder = Path(path)
    manifest = read_manifest(path)
    if manifest.state != "complete":
        done = count_done(folder, manifest.n_samples)
        raise DumpError(
            f"{os.fspath(path)}: is half-written, {done:,} of {manifest.n_samples:,} samples are whole; "
            f"go on with `moefps capture ... -o {os.fspath(path)} --resume`"
        )
    arrays = {}
    for name in ARRAYS:
        listed = manifest.arrays is not None and name in manifest.arrays
        # Beside what must be there, whatever is there is opened, and held to the same rules.
        if listed or name == "expert_ids" or os.path.lexists(folder / f"{name}.npy"):
            arrays[name] = _open_array(folder, name, manifest)
    samples, starts = _read_samples(folder, manifest)
    has_tokens = os.path.lexists(folder / TOKENS)
    if has_tokens:
        _check_tokens(folder, manifest)
    return Opened(manifest, arrays, samples, starts, has_tokens)


def read_tokens(folder: Path, starts: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Read tokens.parquet, and check that its rows belong to the samples as the offsets say.

    Raises
    ------
    FileError, DumpError
        The file is damaged, or a token is counted to another sample.
    """
    file = member(folder, TOKENS)
    frame: pl.DataFrame = _from_parquet(file, _read_frame)
    if frame.height != starts[-1]:
        raise DumpError(f"{file}: has {frame.height:,} rows, expected one for each of {starts[-1]:,} tokens")
    if "sample" in frame.columns:
        found = _integers(file, frame, "sample")
        expected = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        _check_equal(file, "sample", found, expected)
    return frame


def _open_array(folder: Path, name: str, manifest: Manifest) -> npt.NDArray[Any]:
    file = member(folder, f"{name}.npy")
    if name == "fingerprints" and manifest.fingerprint_kind is None:
        raise DumpError(f"{file}: the manifest has no fingerprint_kind; accepted: probs, weights, counts")
    expected = array_shape(
        name,
        n_samples=manifest.n_samples,
        n_tokens=manifest.n_tokens,
        top_k=manifest.top_k,
        layers=manifest.layers,
        n_hidden=len(manifest.hidden_layers or ()),
    )
    if 0 in expected:
        # Nothing can be mapped from an empty array.
        return _open_empty(file, name, expected)
    array = open_npy(file, dtypes=DTYPES[name], ndim=(3,), layout=LAYOUTS[name])
    if name == "hidden_states" and manifest.hidden_layers is None:
        expected = (expected[0], None, None)
    if any(want not in {None, size} for want, size in zip(expected, array.shape, strict=True)):
        raise DumpError(
            f"{file}: shape is {array.shape}; accepted: {LAYOUTS[name]} = {_sizes(expected)}, as the manifest says"
        )
    return array


def _open_empty(file: Path, name: str, expected: tuple[int | None, ...]) -> npt.NDArray[Any]:
    shape = tuple(size or 0 for size in expected)
    for dtype in DTYPES[name]:
        if npy_matches(file, shape, dtype, any_last=expected[-1] is None):
            return np.empty(shape, dtype=dtype)
    raise DumpError(f"{file}: is not an empty array of {LAYOUTS[name]} = {_sizes(expected)}, as the manifest says")


def _read_samples(folder: Path, manifest: Manifest) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """Read samples.parquet, and check that the samples lie one after the other and hold all tokens."""
    file = member(folder, SAMPLES)
    height = _from_parquet(file, _count_rows)
    if height != manifest.n_samples:
        raise DumpError(f"{file}: has {height:,} rows, but the manifest says {manifest.n_samples:,} samples")
    frame: pl.DataFrame = _from_parquet(file, _read_frame)
    _check_equal(file, "sample", _integers(file, frame, "sample"), np.arange(height))
    starts, lengths = _integers(file, frame, "token_start"), _integers(file, frame, "n_tokens")
    total = manifest.n_tokens
    for name, column in (("token_start", starts), ("n_tokens", lengths)):
        outside = (column < 0) | (column > total)
        if outside.any():
            i = int(np.argmax(outside))
            raise DumpError(f"{file}: row {i}: {name} is {column[i]}; accepted: 0 to {total}, the number of tokens")
    edges = np.append(starts, total)
    if edges[0] != 0:
        found = f"row 0: token_start is {edges[0]}" if height else f"no sample has the {total:,} tokens"
        raise DumpError(f"{file}: {found}; accepted: samples one after the other, from token 0")
    wrong = np.diff(edges) != lengths
    if wrong.any():
        i = int(np.argmax(wrong))
        what = f"starts at token {edges[i + 1]}" if i + 1 < height else f"is past the last of {total} tokens"
        raise DumpError(
            f"{file}: row {i}: token_start {starts[i]} and n_tokens {lengths[i]} do not add up: "
            f"the next row {what}, expected {starts[i] + lengths[i]}"
        )
    return frame, edges


def _check_tokens(folder: Path, manifest: Manifest) -> None:
    file = member(folder, TOKENS)
    height = _from_parquet(file, _count_rows)
    if height != manifest.n_tokens:
        raise DumpError(f"{file}: has {height:,} rows, but the manifest says {manifest.n_tokens:,} tokens")


def _integers(file: Path, frame: pl.DataFrame, name: str) -> npt.NDArray[np.int64]:
    import polars as pl

    if name not in frame.columns:
        raise DumpError(f"{file}: has no column {name!r}")
    column = frame[name]
    if not column.dtype.is_integer():
        raise DumpError(f"{file}: column {name!r} is {column.dtype}; accepted: integers")
    if column.null_count():
        raise DumpError(f"{file}: row {int(column.is_null().arg_true()[0])}: {name} is null; accepted: integers")
    try:
        found: npt.NDArray[np.int64] = column.cast(pl.Int64).to_numpy()
    except pl.exceptions.PolarsError:
        raise DumpError(f"{file}: column {name!r} has numbers past 64 bits; accepted: integers") from None
    return found


def _check_equal(file: Path, name: str, found: npt.NDArray[np.int64], expected: npt.NDArray[np.int64]) -> None:
    if not np.array_equal(found, expected):
        i = int(np.argmax(found != expected))
        raise DumpError(f"{file}: row {i}: {name} is {found[i]}, expected {expected[i]}")


def _read_frame(file: Any) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(file)


def _count_rows(file: Any) -> int:
    import polars as pl

    return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def _from_parquet(path: Path, read: Callable[[Any], Any]) -> Any:
    """Read from a parquet file; what is wrong with it becomes one line."""
    import polars as pl

    try:
        # An open file, as polars takes signs in a path for patterns.
        with path.open("rb") as file:
            return read(file)
    except MoefpsError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, OverflowError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise DumpError(f"{path}: is not a parquet file that can be read: {lines[0][:120]}") from None


def _sizes(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"

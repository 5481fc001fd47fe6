"""The arrays of another tool's trace, brought piece by piece to what a dump is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from moefps.errors import DataError
from moefps.io.derived import choose
from moefps.io.npy import open_npy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from moefps._typing import ProgressCallback
    from moefps.io.trace_sources import Logits, Source

__all__ = ["Stages", "derived_arrays", "narrowing_notes", "pieces"]

_CHUNK_NUMBERS = 1 << 22


def derived_arrays(
    source: Source, top_k: int, scoring: str, scratch: Path, progress: ProgressCallback | None
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Compute ids and weights from logits, into files of ours.

    Parameters
    ----------
    source : Source
        With router logits.
    top_k : int
        Experts that a token chooses.
    scoring : str
        As `choose` has it.
    scratch : Path
        The folder for those files; must outlive the arrays.
    progress : callable, optional
        Takes ``(done, total)`` tokens.

    Returns
    -------
    ids, weights, logits : ndarray
        int16 [T, L, k], float32 [T, L, k], and float16 or float32 [T, L, E], all mapped.

    Raises
    ------
    DataError
        A logit is NaN or plus infinity, or negative where they are probabilities.
    """
    logits = cast("Logits", source.logits)
    shape = (logits.n_tokens, source.n_layers, top_k)
    wide = (*shape[:2], max(logits.widths))
    is_whole = logits.whole is not None and logits.whole.dtype == logits.dtype
    with (
        _ScratchArray(scratch / "ids.npy", np.dtype(np.int16), shape) as ids,
        _ScratchArray(scratch / "weights.npy", np.dtype(np.float32), shape) as weights,
        _ScratchArray(scratch / "logits.npy", logits.dtype, (0,) if is_whole else wide) as copied,
    ):
        for start, stop in pieces(wide):
            read = logits.read(start, stop)
            chosen, shares = choose(read, top_k, scoring, logits.widths, name=source.name, first_token=start)
            ids.append(chosen)
            weights.append(shares)
            if not is_whole:
                copied.append(_narrowed(read, logits.dtype, f"{source.name}: router logits", start))
            if progress is not None:
                progress(stop, logits.n_tokens)
    kept = cast("npt.NDArray[Any]", logits.whole) if is_whole else copied.open()
    return ids.open(), weights.open(), kept


def _narrowed(array: npt.NDArray[Any], dtype: np.dtype[Any], name: str, first_token: int) -> npt.NDArray[Any]:
    """Give float64 as float32, unless a number is too large for that."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    grown = np.isinf(narrow) & np.isfinite(array)
    if grown.any():
        token = int(grown.any(axis=(1, 2)).argmax())
        raise DataError(f"{name}: token {first_token + token} has a number beyond {dtype}; accepted: smaller ones")
    return narrow


class _ScratchArray:
    """A .npy of ours that is written front to back, and then mapped."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._path, self._dtype, self._shape = path, dtype, shape

    def __enter__(self) -> _ScratchArray:
        self._file = self._path.open("xb")
        fields = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, fields)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)

    def open(self) -> npt.NDArray[Any]:
        return open_npy(self._path, dtypes=(self._dtype,), ndim=(len(self._shape),), layout="")


def narrowing_notes(source: Source) -> list[str]:
    """Say which numbers a dump keeps in less precision than the file."""
    blocks = source.logits.blocks if source.logits is not None else ()
    found = {"weights": source.weights, "router logits": next((b for b in blocks if b.dtype == np.float64), None)}
    return [
        f"{what} are float64 in the file, and float32 in the dump"
        for what, array in found.items()
        if array is not None and array.dtype == np.float64
    ]


def pieces(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut the first dimension into pieces of a few million numbers."""
    step = max(1, _CHUNK_NUMBERS // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


class Stages:
    """Progress of several stages of the same length as one that never goes back.

    Parameters
    ----------
    report : callable
        Takes ``(done, total)`` of everything.
    n_stages : int
        How many stages there are; each begins anew at a smaller number than the last one ended.

    Examples
    --------
    >>> stages = Stages(lambda done, total: print(f"{done}/{total}"), 2)
    >>> for done in (5, 10, 4, 10):
    ...     stages(done, 10)
    5/20
    10/20
    14/20
    20/20
    """

    def __init__(self, report: ProgressCallback, n_stages: int) -> None:
        self._report, self._n_stages = report, n_stages
        self._stage = self._last = 0

    def __call__(self, done: int, total: int) -> None:
        """Note how far the present stage is, or that the next one has begun."""
        if done <= self._last:
            self._stage += 1
        self._last = done
        self._report(self._stage * total + done, self._n_stages * total)

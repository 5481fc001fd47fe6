"""Wasserstein distances between fingerprints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps import _core
from moefps._progress import progress_callback
from moefps._typing import Float64Array, FloatArray, Ground, PathLike, Precision, Progress, Reduce
from moefps.errors import ArgumentError, DtypeError, FileError, ShapeError
from moefps.kernels._arguments import check_distance, check_fingerprints, check_threads


def wasserstein_matrix(
    X: npt.ArrayLike,
    *,
    ground: Ground = "index",
    reduce: Reduce = "sum",
    layer_weights: npt.ArrayLike | None = None,
    dtype: Precision = "float32",
    out: FloatArray | PathLike | None = None,
    condensed: bool = False,
    normalize: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> FloatArray:
    """Distances between all pairs of fingerprints.

    The distance of two fingerprints is the sum over layers of the 1-D Wasserstein-1 distance between their rows.

    Parameters
    ----------
    X : array [N, L, E]
        Fingerprints: float16, float32 or float64 in any memory order, also memory-mapped; N >= 2, E >= 2. Rows are
        distributions over experts: finite, not negative, summing to 1 within 2e-3, 1e-4 or 1e-6 by dtype. Within that
        they are divided by their float64 sum, as SciPy does.
    ground : {"index", "values", "discrete"} or array [E] or [L, E]
        How far experts are from one another.

        - ``"index"``: experts stand at 0..E-1 on a line, as in
          ``scipy.stats.wasserstein_distance(arange(E), arange(E), p, q)``. Depends on how experts are numbered, which
          training leaves arbitrary.
        - ``"values"``: compares the sorted values of the rows, blind to which expert holds them; what
          ``scipy.stats.wasserstein_distance(p, q)`` computes when it is handed two rows as they are.
        - ``"discrete"``: all experts equally far, half the L1 distance (total variation); renumbering experts changes
          nothing.
        - positions: experts stand at these places on a line, for all layers or for each.
    reduce : {"sum", "mean"}
        Over layers; the mean is weighted by `layer_weights`.
    layer_weights : array [L], optional
        What each layer's distance is multiplied by: finite, not negative, not all zero.
    dtype : {"float32", "float64"}
        Arithmetic and result. ``"float32"`` computes in 31-bit fixed point, with an error of at most
        ``1e-6 * d + L * E * 2**-31 * (largest gap between positions)``; identical rows are at exactly 0.
        ``"float64"`` is within ``1e-12 * max(1, d)`` and takes about three times as long. Both give the same bits on
        every processor and for any number of threads.
    out : array or path, optional
        A C-contiguous array of the result's shape and dtype to fill, or the path of a .npy file to write tile by tile,
        so that the matrix need not fit into memory. The file appears under its name when it is whole; one that is
        there already is replaced.
    condensed : bool
        Only the upper triangle, row by row, ``[N * (N - 1) / 2]``, as ``scipy.spatial.distance.pdist`` gives it.
    normalize : bool
        Accept rows with any positive sum, and divide by it.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable
        True shows a bar on stderr; a callable gets ``(done, total)`` several times a second.

    Returns
    -------
    array [N, N] or [N * (N - 1) / 2]
        `out` if that was an array, a read-only memory map of the file if it was a path.

    Raises
    ------
    ShapeError, DtypeError, DataError
        `X` is not an array of fingerprints; the first sample and layer at fault are named.
    ArgumentError
        Another argument is not accepted.
    FileError
        The output file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> X = np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.5, 0.5]]])
    >>> moefps.wasserstein_matrix(X)
    array([[0. , 1. , 1.5],
           [1. , 0. , 0.5],
           [1.5, 0.5, 0. ]], dtype=float32)
    >>> moefps.wasserstein_matrix(X, ground="discrete", condensed=True)
    array([1. , 1. , 0.5], dtype=float32)
    """
    fingerprints = check_fingerprints("X", X, at_least=2)
    distance = check_distance(fingerprints.shape, ground, reduce, layer_weights, dtype, normalize)
    n = len(fingerprints)
    shape = (n * (n - 1) // 2,) if condensed else (n, n)
    target, result = _prepare_output(out, shape, distance.dtype, fingerprints)
    threads = check_threads(n_threads)
    with progress_callback(progress, "distances") as callback:
        _core.wasserstein_matrix(
            fingerprints, distance, target, condensed=bool(condensed), n_threads=threads, progress=callback
        )
    return _read_back(target) if result is None else result


def wasserstein_cross(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    ground: Ground = "index",
    reduce: Reduce = "sum",
    layer_weights: npt.ArrayLike | None = None,
    dtype: Precision = "float32",
    out: FloatArray | PathLike | None = None,
    normalize: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> FloatArray:
    """Distances between every fingerprint of one array and every fingerprint of another.

    Bit for bit what `wasserstein_matrix` gives for the same pairs.

    Parameters
    ----------
    X : array [N, L, E]
        Fingerprints, as for `wasserstein_matrix`.
    Y : array [M, L, E]
        Fingerprints of as many layers and experts; the dtype may be another.
    ground, reduce, layer_weights, dtype, out, normalize, n_threads, progress
        As for `wasserstein_matrix`.

    Returns
    -------
    array [N, M]
        Distances.

    Raises
    ------
    ShapeError, DtypeError, DataError, ArgumentError, FileError
        As for `wasserstein_matrix`.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> X = np.array([[[1.0, 0.0, 0.0]], [[0.0, 0.5, 0.5]]])
    >>> moefps.wasserstein_cross(X, X[:1])
    array([[0. ],
           [1.5]], dtype=float32)
    """
    left, right = check_fingerprints("X", X), check_fingerprints("Y", Y)
    if left.shape[1:] != right.shape[1:]:
        raise ShapeError(f"Y: shape {right.shape}; accepted: [M, {left.shape[1]}, {left.shape[2]}], as X has it")
    distance = check_distance(left.shape, ground, reduce, layer_weights, dtype, normalize)
    target, result = _prepare_output(out, (len(left), len(right)), distance.dtype, left, right)
    threads = check_threads(n_threads)
    with progress_callback(progress, "distances") as callback:
        _core.wasserstein_cross(left, right, distance, target, n_threads=threads, progress=callback)
    return _read_back(target) if result is None else result


def mean_distances(
    X: npt.ArrayLike,
    *,
    ground: Ground = "index",
    reduce: Reduce = "sum",
    layer_weights: npt.ArrayLike | None = None,
    dtype: Precision = "float32",
    normalize: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> Float64Array:
    """Mean distance of each fingerprint to all others, without the matrix.

    L1 distance separates into features, and sorting a feature gives the sums of all its differences at once, so this
    takes O(N log N * L * E).

    Parameters
    ----------
    X : array [N, L, E]
        Fingerprints, as for `wasserstein_matrix`; N >= 1.
    ground, reduce, layer_weights, dtype, normalize, n_threads, progress
        As for `wasserstein_matrix`.

    Returns
    -------
    float64 array [N]
        The sum of the distances to the others, divided by N - 1; 0 for a single sample.

    Raises
    ------
    ShapeError, DtypeError, DataError, ArgumentError
        As for `wasserstein_matrix`.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> X = np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.5, 0.5]]])
    >>> moefps.mean_distances(X, dtype="float64")
    array([1.25, 0.75, 1.  ])
    """
    fingerprints = check_fingerprints("X", X)
    distance = check_distance(fingerprints.shape, ground, reduce, layer_weights, dtype, normalize)
    threads = check_threads(n_threads)
    with progress_callback(progress, "mean distances") as callback:
        return _core.mean_distances(fingerprints, distance, n_threads=threads, progress=callback)


def _prepare_output(
    out: FloatArray | PathLike | None, shape: tuple[int, ...], dtype: str, *inputs: FloatArray
) -> tuple[Any, FloatArray | None]:
    """Return what Rust is to fill, and the array that it will then be part of (None for a file)."""
    if isinstance(out, str | os.PathLike):
        path = Path(out)
        if path.suffix != ".npy":
            raise ArgumentError(f"out: {str(path)!r}; accepted: an array, or a path that ends in .npy")
        if path.exists() and not path.is_file():
            raise FileError(f"out: {path} is not a file; accepted: a path that is free, or a file to replace")
        # Of a link, the file that it points to is the one to be replaced.
        return path.resolve() if path.is_symlink() else path, None
    if out is None:
        result: FloatArray = np.empty(shape, dtype=dtype)
    elif not isinstance(out, np.ndarray):
        raise ArgumentError(f"out: {type(out).__name__}; accepted: an array, or a path that ends in .npy")
    elif out.dtype != np.dtype(dtype):
        raise DtypeError(f"out: dtype {out.dtype}; accepted: {dtype}")
    elif out.shape != shape:
        raise ShapeError(f"out: shape {out.shape}; accepted: {shape}")
    elif not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise ArgumentError("out: read-only or not C-contiguous; accepted: a writable C-contiguous array")
    elif any(np.may_share_memory(out, array) for array in inputs):
        raise ArgumentError("out: shares memory with the input; accepted: an array of its own")
    else:
        result = out
    return result.view(np.ndarray).reshape(-1), result


def _read_back(path: Path) -> FloatArray:
    matrix: FloatArray = np.load(path, mmap_mode="r", allow_pickle=False)
    return matrix

"""Farthest point sampling, as the kernels give it: plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moefps import _core
from moefps._progress import progress_callback
from moefps._typing import Float64Array, Ground, IndexArray, Precision, Progress, Reduce, Start
from moefps.errors import ArgumentError, DtypeError, ShapeError
from moefps.kernels._arguments import (
    check_count,
    check_distance,
    check_fingerprints,
    check_float_array,
    check_seed,
    check_threads,
)


class Picks(NamedTuple):
    """A selection: see `moefps.Selection` for the fields."""

    indices: IndexArray
    radii: Float64Array
    assignment: IndexArray
    distances: Float64Array


def pick_from_distances(
    D: npt.ArrayLike,
    n_select: int | None,
    *,
    start: Start,
    seed: int | None,
    stop_radius: float | None,
    n_threads: int | None,
    progress: Progress,
) -> Picks:
    """Farthest point sampling on a distance matrix; see `moefps.fps`."""
    matrix = check_float_array("D", D)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        hint = ", such as scipy.spatial.distance.squareform(D)" if matrix.ndim == 1 else ""
        raise ShapeError(f"D: shape {matrix.shape}; accepted: a square matrix [N, N]{hint}")
    n = len(matrix)
    count, first, radius = _check_goal(n, n_select, start, seed, stop_radius)
    threads = check_threads(n_threads)
    with progress_callback(progress, "selecting") as callback:
        return Picks(*_core.fps(matrix, count, start=first, stop_radius=radius, n_threads=threads, progress=callback))


def pick_from_fingerprints(
    X: npt.ArrayLike,
    n_select: int | None,
    *,
    ground: Ground,
    reduce: Reduce,
    layer_weights: npt.ArrayLike | None,
    dtype: Precision,
    start: Start,
    seed: int | None,
    stop_radius: float | None,
    normalize: bool,
    prune: bool,
    n_threads: int | None,
    progress: Progress,
) -> Picks:
    """Farthest point sampling without a distance matrix; see `moefps.select`."""
    fingerprints = check_fingerprints("X", X)
    distance = check_distance(fingerprints.shape, ground, reduce, layer_weights, dtype, normalize)
    count, first, radius = _check_goal(len(fingerprints), n_select, start, seed, stop_radius)
    threads = check_threads(n_threads)
    with progress_callback(progress, "selecting") as callback:
        return Picks(
            *_core.select(
                fingerprints,
                count,
                distance,
                start=first,
                stop_radius=radius,
                prune=bool(prune),
                n_threads=threads,
                progress=callback,
            )
        )


def cover_radii(
    X: npt.ArrayLike,
    sets: Sequence[IndexArray],
    *,
    ground: Ground,
    reduce: Reduce,
    layer_weights: npt.ArrayLike | None,
    dtype: Precision,
    normalize: bool,
    n_threads: int | None,
    progress: Progress,
) -> Float64Array:
    """Return ``[len(sets), 2]``: for each set of picks the covering radius and the mean distance to the nearest."""
    fingerprints = check_fingerprints("X", X)
    distance = check_distance(fingerprints.shape, ground, reduce, layer_weights, dtype, normalize)
    threads = check_threads(n_threads)
    picks = [s.tolist() for s in sets]
    with progress_callback(progress, "random selections") as callback:
        return np.array(_core.cover(fingerprints, picks, distance, n_threads=threads, progress=callback))


def _check_goal(
    n: int, n_select: int | None, start: Start, seed: int | None, stop_radius: float | None
) -> tuple[int, str | list[int], float | None]:
    """Check how much is to be selected, from where, and until when; draw the random start."""
    radius = None
    if stop_radius is not None:
        try:
            radius = float(stop_radius)
        except (TypeError, ValueError):
            raise ArgumentError(f"stop_radius: {stop_radius!r}; accepted: a number >= 0, or None") from None
    if n_select is None:
        if radius is None:
            raise ArgumentError("n_select: None; accepted: an integer, or None with stop_radius")
        count = n
    else:
        count = check_count("n_select", n_select, f"an integer from 1 to {n}, the number of samples")
    # Rust cannot hold a negative number here, and would say so in other words.
    if count < 1 or count > n:
        raise ArgumentError(f"n_select: {count}; accepted: 1 to {n}, the number of samples")
    return count, _check_start(n, start, seed), radius


def _check_start(n: int, start: Start, seed: int | None) -> str | list[int]:
    accepted = "'medoid', 'farthest', 'random', an index, or a list of indices"
    if isinstance(start, str):
        if start == "random":
            return [int(np.random.default_rng(check_seed("seed", seed)).integers(n))]
        if start not in ("medoid", "farthest"):
            raise ArgumentError(f"start: {start!r}; accepted: {accepted}")
        return start
    indices = np.asarray(start)
    if indices.dtype.kind not in "iu" or indices.ndim > 1:
        if indices.size == 0:
            raise ArgumentError(f"start: no indices; accepted: {accepted}")
        raise DtypeError(f"start: {start!r}; accepted: {accepted}")
    picks: list[int] = np.atleast_1d(indices).tolist()
    outside = [i for i in picks if not 0 <= i < n]
    if outside:
        raise ArgumentError(f"start: index {outside[0]}; accepted: 0 to {n - 1}")
    return picks

"""Farthest point sampling: with a distance matrix (`fps`) and without (`select`).

The greedy algorithm of Gonzalez (1985, "Clustering to minimize the maximum intercluster distance"): each pick is the
sample farthest from all picks before it. Its covering radius is at most twice the smallest that any selection of the
same size could have.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moefps._typing import Float64Array, Ground, IndexArray, Precision, Progress, Reduce, Start
from moefps.errors import DuplicateWarning
from moefps.kernels import Picks, pick_from_distances, pick_from_fingerprints


@dataclass(frozen=True, eq=False)
class Selection:
    """Samples picked one after another, and how well they cover all N.

    Attributes
    ----------
    indices : int64 array [M]
        The picks in the order in which they were made.
    radii : float64 array [M]
        ``radii[i]`` is the covering radius after ``i + 1`` picks: the largest distance of any sample to its nearest
        pick. Never rises.
    assignment : int64 array [N]
        The position in `indices` of each sample's nearest pick; of equally near ones the earliest.
    distances : float64 array [N]
        The distance of each sample to that pick.
    cluster_sizes : int64 array [M]
        How many samples each pick is the nearest of, itself included. They sum to N.
    """

    indices: IndexArray
    radii: Float64Array
    assignment: IndexArray
    distances: Float64Array
    cluster_sizes: IndexArray

    def __len__(self) -> int:
        """Return the number of picks."""
        return len(self.indices)


def fps(
    D: npt.ArrayLike,
    n_select: int | None,
    *,
    start: Start = "medoid",
    seed: int | None = None,
    stop_radius: float | None = None,
    n_threads: int | None = None,
    progress: Progress = False,
) -> Selection:
    """Select samples by farthest point sampling on a precomputed distance matrix.

    Parameters
    ----------
    D : array [N, N]
        Any symmetric matrix of finite distances >= 0 with a zero diagonal: float16, float32 or float64, also
        memory-mapped. Mirrored entries may differ by rounding (1e-3, 1e-6 or 1e-9 of the larger, by dtype).
    n_select : int or None
        Picks to make, 1 to N; None leaves it to `stop_radius`.
    start : {"medoid", "farthest", "random"} or int or sequence of int
        The first pick: the sample with the smallest sum of distances to all (the default, since it is deterministic),
        with the largest sum, a random one (the textbook start), or given indices, all of which are picked first.
    seed : int, optional
        Makes ``start="random"`` repeatable.
    stop_radius : float, optional
        Stop after the first pick with a covering radius of at most this.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable
        True shows a bar on stderr; a callable gets ``(done, total)``.

    Returns
    -------
    Selection
        Ties go to the lowest index, and no index is picked twice, whatever the number of threads.

    Raises
    ------
    ShapeError, DtypeError, DataError
        `D` is not a distance matrix; the first entry at fault is named.
    ArgumentError
        `n_select`, `start` or `stop_radius` is not accepted.

    Warns
    -----
    DuplicateWarning
        All samples were covered at distance 0 before the picks were made; the rest are exact duplicates, taken in
        order of their index.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> x = np.array([0.0, 1.0, 2.0, 10.0])
    >>> selection = moefps.fps(np.abs(x[:, None] - x), 2)
    >>> selection.indices, selection.radii
    (array([1, 3]), array([9., 1.]))
    """
    picks = pick_from_distances(
        D, n_select, start=start, seed=seed, stop_radius=stop_radius, n_threads=n_threads, progress=progress
    )
    return _selection(picks)


def select(
    X: npt.ArrayLike,
    n_select: int | None,
    *,
    ground: Ground = "index",
    reduce: Reduce = "sum",
    layer_weights: npt.ArrayLike | None = None,
    dtype: Precision = "float32",
    start: Start = "medoid",
    seed: int | None = None,
    stop_radius: float | None = None,
    normalize: bool = False,
    prune: bool = True,
    n_threads: int | None = None,
    progress: Progress = False,
) -> Selection:
    """Select samples by farthest point sampling, without a distance matrix.

    From the same first pick, the same picks and radii as ``fps(wasserstein_matrix(X), n_select)``, in at most O(N * M)
    distances, of which lower bounds leave few to be computed. (The medoid is found from exact sums here, there from
    sums of rounded distances.)

    Parameters
    ----------
    X : array [N, L, E]
        Fingerprints, as for `wasserstein_matrix`; N >= 1.
    n_select : int or None
        Picks to make, 1 to N; None leaves it to `stop_radius`.
    ground, reduce, layer_weights, dtype, normalize
        As for `wasserstein_matrix`.
    start, seed, stop_radius, n_threads, progress
        As for `fps`.
    prune : bool
        Whether to use lower bounds. They never change the answer; this is here to measure what they save.

    Returns
    -------
    Selection
        Ties go to the lowest index, and no index is picked twice, whatever the number of threads and the processor.

    Raises
    ------
    ShapeError, DtypeError, DataError
        `X` is not an array of fingerprints.
    ArgumentError
        Another argument is not accepted.

    Warns
    -----
    DuplicateWarning
        As for `fps`.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> X = np.array([[[1.0, 0.0, 0.0]], [[0.9, 0.1, 0.0]], [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]])
    >>> selection = moefps.select(X, 3, start=0)
    >>> selection.indices, selection.assignment
    (array([0, 2, 3]), array([0, 0, 1, 2]))
    """
    picks = pick_from_fingerprints(
        X,
        n_select,
        ground=ground,
        reduce=reduce,
        layer_weights=layer_weights,
        dtype=dtype,
        start=start,
        seed=seed,
        stop_radius=stop_radius,
        normalize=normalize,
        prune=prune,
        n_threads=n_threads,
        progress=progress,
    )
    return _selection(picks)


def _selection(picks: Picks) -> Selection:
    """Add the cluster sizes, and warn about duplicates."""
    n, m = len(picks.assignment), len(picks.indices)
    sizes = np.bincount(picks.assignment, minlength=m)
    if picks.radii[-1] == 0 and not sizes.all():
        # A duplicate is nearest to the first pick that it equals, so it has no cluster of its own.
        distinct = int(np.count_nonzero(sizes))
        warnings.warn(
            f"{m - distinct} of {m} picks are exact duplicates of other picks: "
            f"the {n} samples hold {distinct} distinct ones",
            DuplicateWarning,
            stacklevel=3,
        )
    return Selection(*picks, cluster_sizes=sizes)

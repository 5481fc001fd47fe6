"""How good a selection is beside random ones, and how common each sample is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps._typing import Float64Array, Ground, IndexArray, Precision, Progress, Reduce
from moefps.errors import ArgumentError, DtypeError, ShapeError
from moefps.kernels import check_count, check_fingerprints, check_seed, cover_radii, mean_distances


@dataclass(frozen=True)
class RandomInterval:
    """What random selections of the same size reach.

    Attributes
    ----------
    mean : float
        Over the random selections.
    low, high : float
        Their 2.5th and 97.5th percentile.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SelectionEvaluation:
    """A selection beside random selections of the same size.

    Attributes
    ----------
    n_samples, n_selected : int
        N and M.
    covering_radius : float
        The largest distance of any sample to its nearest pick.
    mean_distance : float
        The mean over all samples of the distance to the nearest pick.
    labels_covered, n_labels : int or None
        How many different labels the picks have, and how many there are; None without labels.
    n_random : int
        Random selections that were drawn.
    random_covering_radius, random_mean_distance : RandomInterval
        The same two for the random selections.
    random_labels_covered : RandomInterval or None
        None without labels.
    """

    n_samples: int
    n_selected: int
    covering_radius: float
    mean_distance: float
    labels_covered: int | None
    n_labels: int | None
    n_random: int
    random_covering_radius: RandomInterval
    random_mean_distance: RandomInterval
    random_labels_covered: RandomInterval | None


def evaluate_selection(
    X: npt.ArrayLike,
    indices: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    n_random: int = 100,
    seed: int = 0,
    ground: Ground = "index",
    reduce: Reduce = "sum",
    layer_weights: npt.ArrayLike | None = None,
    dtype: Precision = "float32",
    normalize: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> SelectionEvaluation:
    """Measure how well picks cover all samples, beside random picks.

    Parameters
    ----------
    X : array [N, L, E]
        Fingerprints, as for `wasserstein_matrix`.
    indices : int array [M]
        The picks, such as ``selection.indices``; each at most once.
    labels : array [N], optional
        What each sample is, to count how many kinds the picks cover.
    n_random : int
        Random selections of M samples to compare with.
    seed : int
        They are drawn from ``numpy.random.default_rng([seed, i])`` for i in 0..n_random-1.
    ground, reduce, layer_weights, dtype, normalize, n_threads, progress
        As for `wasserstein_matrix`.

    Returns
    -------
    SelectionEvaluation
        Covering radius, mean distance and labels covered.

    Raises
    ------
    ArgumentError
        Indices out of range or given twice, or no random selections.
    ShapeError
        Not one label for each sample.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat(["common", "rare", "rarer"], [90, 8, 2])
    >>> favourites = {"common": [9, 1, 1, 1], "rare": [1, 1, 9, 1], "rarer": [1, 1, 1, 9]}
    >>> X = np.stack([rng.dirichlet(favourites[label], size=3) for label in labels])
    >>> result = moefps.evaluate_selection(X, moefps.select(X, 4).indices, labels)
    >>> result.labels_covered, result.n_labels
    (3, 3)
    >>> result.random_labels_covered.mean < 2
    True
    """
    n = len(check_fingerprints("X", X))
    picks = _check_indices(indices, n)
    repeats = check_count("n_random", n_random, "an integer of at least 1")
    if repeats < 1:
        raise ArgumentError(f"n_random: {repeats}; accepted: at least 1")
    root = check_seed("seed", seed) or 0
    kinds = None if labels is None else _label_numbers(labels, n)
    draws = [np.random.default_rng([root, i]).choice(n, size=len(picks), replace=False) for i in range(repeats)]
    sets: list[IndexArray] = [picks, *draws]
    cover = cover_radii(
        X,
        sets,
        ground=ground,
        reduce=reduce,
        layer_weights=layer_weights,
        dtype=dtype,
        normalize=normalize,
        n_threads=n_threads,
        progress=progress,
    )
    covered = None if kinds is None else np.array([len(np.unique(kinds[s])) for s in sets])
    return SelectionEvaluation(
        n_samples=n,
        n_selected=len(picks),
        covering_radius=float(cover[0, 0]),
        mean_distance=float(cover[0, 1]),
        labels_covered=None if covered is None else int(covered[0]),
        n_labels=None if kinds is None else int(kinds.max()) + 1,
        n_random=repeats,
        random_covering_radius=_interval(cover[1:, 0]),
        random_mean_distance=_interval(cover[1:, 1]),
        random_labels_covered=None if covered is None else _interval(covered[1:]),
    )


def typicality(
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
    """Rank each sample by its mean distance to all others: is its path through the experts common or rare.

    Parameters
    ----------
    X : array [N, L, E]
        Fingerprints, as for `wasserstein_matrix`.
    ground, reduce, layer_weights, dtype, normalize, n_threads, progress
        As for `wasserstein_matrix`.

    Returns
    -------
    float64 array [N]
        Percentile from 0 to 100: the share of the other samples whose mean distance is larger, ties counted half. 100
        is the most common path (the medoid), 0 the rarest. A single sample is at 50.

    Raises
    ------
    ShapeError, DtypeError, DataError, ArgumentError
        As for `wasserstein_matrix`.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> X = np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.5, 0.5]]])
    >>> moefps.typicality(X)
    array([  0., 100.,  50.])
    """
    means = mean_distances(
        X,
        ground=ground,
        reduce=reduce,
        layer_weights=layer_weights,
        dtype=dtype,
        normalize=normalize,
        n_threads=n_threads,
        progress=progress,
    )
    return percentile_of_smaller(means)


def percentile_of_smaller(values: Float64Array) -> Float64Array:
    """Return for each value the percentage of the other values that are larger, ties counted half."""
    n = len(values)
    if n == 1:
        return np.full(1, 50.0)
    ordered = np.sort(values)
    larger = n - np.searchsorted(ordered, values, side="right")
    others_equal = n - 1 - larger - np.searchsorted(ordered, values, side="left")
    percentiles: Float64Array = 100.0 * (larger + 0.5 * others_equal) / (n - 1)
    return percentiles


def _check_indices(indices: npt.ArrayLike, n: int) -> IndexArray:
    found: npt.NDArray[Any] = np.asarray(indices)
    if found.ndim != 1 or found.size == 0:
        raise ShapeError(f"indices: shape {found.shape}; accepted: [M] with M from 1 to {n}")
    if found.dtype.kind not in "iu":
        raise DtypeError(f"indices: dtype {found.dtype}; accepted: integers")
    outside = found[(found < 0) | (found >= n)]
    if outside.size:
        raise ArgumentError(f"indices: {outside[0]}; accepted: 0 to {n - 1}")
    values, counts = np.unique(found, return_counts=True)
    if counts.max() > 1:
        raise ArgumentError(f"indices: {values[counts.argmax()]} twice; accepted: each index once")
    return found.astype(np.int64)


def _label_numbers(labels: npt.ArrayLike, n: int) -> IndexArray:
    found: npt.NDArray[Any] = np.asarray(labels)
    if found.shape != (n,):
        raise ShapeError(f"labels: shape {found.shape}; accepted: ({n},), one for each sample")
    numbers: IndexArray = np.unique(found, return_inverse=True)[1].astype(np.int64)
    return numbers


def _interval(values: npt.NDArray[Any]) -> RandomInterval:
    low, high = np.percentile(values, [2.5, 97.5])
    return RandomInterval(mean=float(values.mean()), low=float(low), high=float(high))

"""Bootstrap over tasks, from sums that each task keeps: no token is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.comparison.jackknife import ratio_influences, standard_error, student_t
from moefps.comparison.products import product
from moefps.errors import ArgumentError

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array

__all__ = ["mean_with_interval", "percentile_interval", "resample_tasks", "resampled_ratios"]

_ENTRIES = 1 << 20
"""Resampled values that are made at a time: enough to be quick, few enough to be interrupted."""


def resample_tasks(n_tasks: int, n_resamples: int, *, seed: int) -> Float64Array:
    """Draw how often each task is taken in each resample.

    Parameters
    ----------
    n_tasks : int
        Tasks, N.
    n_resamples : int
        Resamples, R.
    seed : int
        Of the generator.

    Returns
    -------
    ndarray of float64 [R, N]
        Whole numbers; each row sums to N.

    Raises
    ------
    ArgumentError
        There is no task or no resample.

    Examples
    --------
    >>> resample_tasks(4, 2, seed=0).sum(axis=1).tolist()
    [4.0, 4.0]
    """
    for name, value in (("n_tasks", n_tasks), ("n_resamples", n_resamples)):
        if value < 1:
            raise ArgumentError(f"{name}: {value}; accepted: at least 1")
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=n_resamples).astype(np.float64)


def mean_with_interval(
    sums: npt.NDArray[Any],
    counts: npt.NDArray[Any],
    taken: Float64Array | None,
    *,
    least: npt.ArrayLike = -np.inf,
    most: npt.ArrayLike = np.inf,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Give Σ sums / Σ counts over tasks, and its interval.

    Parameters
    ----------
    sums, counts : ndarray [N, ...]
        What each task adds to the numerator and the denominator.
    taken : ndarray [R, N] or None
        As `resample_tasks` gives it; None for no interval.
    least, most : array-like
        What the mean can be, broadcast: ends past that are brought back to it.

    Returns
    -------
    mean, lo, hi : ndarray [...]
        NaN without a count; the ends are NaN where fewer than two tasks have one, as nothing is to be resampled then.

    Examples
    --------
    >>> taken = resample_tasks(3, 1000, seed=0)
    >>> [round(float(end), 2) for end in mean_with_interval(np.array([2.0, 4.0, 9.0]), np.array([2, 2, 2]), taken)]
    [2.5, -1.34, 7.62]
    """
    shape = sums.shape[1:]
    top, bottom = (np.asarray(of, dtype=np.float64).reshape(len(of), -1) for of in (sums, counts))
    total, n_tasks = bottom.sum(axis=0), (bottom > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(total > 0, top.sum(axis=0) / total, np.nan)
    lo, hi = np.full((2, len(mean)), np.nan)
    several = np.flatnonzero(n_tasks > 1)
    if taken is not None:
        size = max(1, _ENTRIES // len(taken))
        for first in range(0, len(several), size):
            at = several[first : first + size]
            error = standard_error(ratio_influences(top[:, at], bottom[:, at]))
            resampled = resampled_ratios(taken, top[:, at], bottom[:, at])
            lo[at], hi[at] = percentile_interval(mean[at], resampled, error, n_tasks[at])
    mean, lo, hi = (of.reshape(shape) for of in (mean, lo, hi))
    # Rounding may carry a mean past what it can be; it stays inside its own interval.
    return mean, np.maximum(lo, np.minimum(least, mean)), np.minimum(hi, np.maximum(most, mean))


def resampled_ratios(taken: Float64Array, sums: npt.ArrayLike, counts: npt.ArrayLike) -> Float64Array:
    """Give Σ sums / Σ counts of every resample: a mean over tokens, of tasks that were drawn.

    Parameters
    ----------
    taken : ndarray [R, N]
        As `resample_tasks` gives it.
    sums, counts : array-like [N, ...]
        What each task adds to the numerator and the denominator; `counts` may have a last axis of 1.

    Returns
    -------
    ndarray of float64 [..., R]
        NaN where a resample has a count of 0.

    Examples
    --------
    >>> resampled_ratios(np.array([[1.0, 1.0], [0.0, 2.0]]), [1.0, 4.0], [2, 3]).tolist()
    [1.0, 1.3333333333333333]
    """
    numerator, denominator = (_resampled_sums(taken, of) for of in (sums, counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def percentile_interval(
    estimate: npt.ArrayLike, resampled: Float64Array, error: npt.ArrayLike, n_tasks: npt.ArrayLike
) -> tuple[Float64Array, Float64Array]:
    """Give the percentile interval (95 %) of what was resampled, stretched as few or uneven tasks need it.

    Resamples of few tasks spread less than estimates from other tasks would, all the less where some tasks are much
    longer than others: of 20 tasks, plain percentiles cover about 90 %. So their distances from the estimate grow until
    the interval is as wide as ±t standard errors by the jackknife, t Student's with a degree of freedom less than there
    are tasks. What percentiles show of skewness stays.

    Parameters
    ----------
    estimate : array-like [...]
        The value over all tasks.
    resampled : ndarray [..., R]
        A value for each resample; NaN where it had none.
    error : array-like [...]
        The standard error by the jackknife.
    n_tasks : array-like [...]
        Tasks that the estimate is of, at least 2.

    Returns
    -------
    lo, hi : ndarray [...]
        NaN where fewer than half of the resamples have a value: the rest would tell of those alone.

    References
    ----------
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, chapter 5 (percentiles). Hesterberg, What
    Teachers Should Know About the Bootstrap, The American Statistician 69, 2015 (why they are too narrow).

    Examples
    --------
    >>> lo, hi = percentile_interval(0.4, np.linspace(0, 1, 101), 0.2, 1000)
    >>> round(float(lo), 2), round(float(hi), 2)
    (0.03, 0.97)
    >>> lo, hi = percentile_interval(0.4, np.linspace(0, 1, 101), 0.5, 10)
    >>> round(float(lo), 2), round(float(hi), 2)
    (-0.49, 1.77)
    """
    estimate = np.asarray(estimate, dtype=np.float64)
    # What has no value is sorted to the end; the quantiles are of the n before.
    ordered = np.sort(resampled, axis=-1)
    n = ordered.shape[-1] - np.isnan(ordered).sum(axis=-1)
    last = np.maximum(n, 1) - 1
    place = 0.025 * last
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, last)
    distances = []
    # Counted from either end, so that exchanging the conditions exchanges the distances to the last bit.
    for near, far in ((below, above), (last - below, last - above)):
        outer, inner = (np.take_along_axis(ordered, at[..., np.newaxis], axis=-1)[..., 0] for at in (near, far))
        distances.append(outer + (place - below) * (inner - outer) - estimate)
    half = np.vectorize(student_t, otypes=[np.float64])(n_tasks) * error
    width = distances[1] - distances[0]
    stretch = np.maximum(1.0, 2 * half / np.where(width > 0, width, np.inf))
    few = 2 * n < ordered.shape[-1]
    lo, hi = (
        np.where(few, np.nan, estimate + np.where(width > 0, stretch * distance, sign * half))
        for sign, distance in zip((-1, 1), distances, strict=True)
    )
    return lo, hi


def _resampled_sums(taken: Float64Array, of: npt.ArrayLike) -> Float64Array:
    """Add up the tasks that were drawn, [..., R]: the resamples of a value lie side by side, to be sorted."""
    by_task = np.asarray(of, dtype=np.float64)
    flat = product(by_task.reshape(len(by_task), -1).T, taken.T)
    return flat.reshape(*by_task.shape[1:], len(taken))

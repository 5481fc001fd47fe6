"""Bootstrap over tasks, from sums that each task keeps: no token is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moefps.errors import ArgumentError

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array

__all__ = ["basic_interval", "percentile_interval", "resample_tasks", "resampled_ratios"]


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


def resampled_ratios(taken: Float64Array, sums: npt.ArrayLike, counts: npt.ArrayLike) -> Float64Array:
    """Give Σ sums / Σ counts of every resample: a mean over tokens, of tasks that were drawn.

    Parameters
    ----------
    taken : ndarray [R, N]
        As `resample_tasks` gives it.
    sums, counts : array-like [N, ...]
        What each task adds to the numerator and the denominator; `counts` may have fewer dimensions at the end.

    Returns
    -------
    ndarray of float64 [R, ...]
        NaN where a resample has a count of 0.

    Examples
    --------
    >>> resampled_ratios(np.array([[1.0, 1.0], [0.0, 2.0]]), [1.0, 4.0], [2, 3]).tolist()
    [1.0, 1.3333333333333333]
    """
    top, bottom = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    numerator = np.tensordot(taken, top, axes=1)
    denominator = np.tensordot(taken, bottom, axes=1)
    denominator = denominator.reshape(denominator.shape + (1,) * (numerator.ndim - denominator.ndim))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: Float64Array = numerator / denominator
    return np.where(denominator == 0, np.nan, ratios)


def percentile_interval(resampled: Float64Array, level: float = 0.95) -> tuple[Float64Array, Float64Array]:
    """Give the percentile interval of what was resampled, for means and differences of shares.

    Parameters
    ----------
    resampled : ndarray [R, ...]
        A value for each resample; NaN where it had none.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    lo, hi : ndarray [...]
        NaN where fewer than half of the resamples have a value: the rest would tell of those alone.

    Examples
    --------
    >>> [round(float(end), 2) for end in percentile_interval(np.linspace(0, 1, 101))]
    [0.03, 0.97]
    """
    if not 0 < level < 1:
        raise ArgumentError(f"level: {level}; accepted: between 0 and 1, such as 0.95")
    # What has no value is sorted to the end; the quantiles are of the n before.
    ordered = np.sort(resampled, axis=0)
    n = len(resampled) - np.isnan(resampled).sum(axis=0)
    few = 2 * n < len(resampled)
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * (np.maximum(n, 1) - 1)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(n, 1) - 1)
        low, high = (np.take_along_axis(ordered, at[np.newaxis], axis=0)[0] for at in (below, above))
        ends.append(np.where(few, np.nan, low + (place - below) * (high - low)))
    return ends[0], ends[1]


def basic_interval(
    estimate: Float64Array,
    resampled: Float64Array,
    level: float = 0.95,
    *,
    least: float = -np.inf,
    most: float = np.inf,
) -> tuple[Float64Array, Float64Array]:
    """Give the basic (reflected) interval, for what noise biases: correlations, divergences of usage.

    A resample is biased against the estimate as the estimate is against the truth, so the distribution of resamples is
    reflected at the estimate: lo = 2 estimate - upper percentile, hi = 2 estimate - lower percentile.

    Parameters
    ----------
    estimate : ndarray [...]
        The value over all tasks.
    resampled : ndarray [R, ...]
        A value for each resample.
    level : float
        Coverage.
    least, most : float
        Where the ends are clipped, such as -1 and 1 for a correlation.

    Returns
    -------
    lo, hi : ndarray [...]

    References
    ----------
    Davison and Hinkley, Bootstrap Methods and their Application, section 5.2.

    Examples
    --------
    >>> lo, hi = basic_interval(np.float64(0.5), np.linspace(0.5, 0.9, 401))
    >>> round(float(lo), 2), round(float(hi), 2)
    (0.11, 0.49)
    """
    lower, upper = percentile_interval(resampled, level)
    return np.clip(2 * estimate - upper, least, most), np.clip(2 * estimate - lower, least, most)

"""How differently two conditions use the experts of a layer."""

from __future__ import annotations

import numpy as np

from moefps._typing import Float64Array
from moefps.comparison.jackknife import student_t
from moefps.comparison.products import product

__all__ = [
    "divergence_interval",
    "exchanged_distances",
    "exchanged_halves",
    "js_divergence",
    "shares",
    "total_variation",
    "usage_entropy",
]


def shares(counts: Float64Array) -> Float64Array:
    """Divide by the sum along the last axis; NaN where that is 0.

    Examples
    --------
    >>> shares(np.array([[1.0, 3.0]])).tolist()
    [[0.25, 0.75]]
    """
    total = counts.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Float64Array = counts / total
    return np.where(total > 0, found, np.nan)


def total_variation(u: Float64Array, v: Float64Array) -> Float64Array:
    """Give half the sum of absolute differences along the last axis.

    Examples
    --------
    >>> float(total_variation(np.array([1.0, 0.0]), np.array([0.5, 0.5])))
    0.5
    """
    found: Float64Array = 0.5 * np.abs(u - v).sum(axis=-1)
    return found


def js_divergence(u: Float64Array, v: Float64Array) -> Float64Array:
    """Give the Jensen-Shannon divergence to base 2 along the last axis, from 0 to 1; not its square root.

    Examples
    --------
    >>> float(js_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    1.0
    """
    terms = (_x_log_x(u) + _x_log_x(v)) / 2 - _x_log_x((u + v) / 2)
    found: Float64Array = np.maximum(0.0, terms.sum(axis=-1) / np.log(2))
    return found


def usage_entropy(u: Float64Array) -> Float64Array:
    """Give the entropy along the last axis, in nats.

    Examples
    --------
    >>> round(float(usage_entropy(np.array([0.5, 0.5, 0.0]))), 4)
    0.6931
    """
    found: Float64Array = 0.0 - _x_log_x(u).sum(axis=-1)
    return found


def exchanged_distances(a: Float64Array, b: Float64Array, exchanged: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Give total variation and divergence of usage when the conditions are exchanged within halves of the tasks.

    That is what chance alone makes of them: neither is ever negative, so both are above 0 where nothing differs.

    Parameters
    ----------
    a, b : ndarray [N, E]
        What each task adds to the usage of the experts, in the two conditions.
    exchanged : ndarray [H, N]
        As `exchanged_halves` gives it.

    Returns
    -------
    total_variation, js_divergence : ndarray [H]

    Examples
    --------
    >>> a = np.array([[4.0, 0.0], [4.0, 0.0]])
    >>> halves = exchanged_halves(2, 20, seed=0)
    >>> [of.max().item() for of in exchanged_distances(a, a[..., ::-1], halves)]
    [0.0, 0.0]
    """
    moved = product(exchanged, a - b)
    u, v = shares(a.sum(axis=0) - moved), shares(b.sum(axis=0) + moved)
    return total_variation(u, v), js_divergence(u, v)


def divergence_interval(
    a: Float64Array, b: Float64Array, exchanged: Float64Array, by_chance: Float64Array
) -> tuple[float, float]:
    """Give an interval (95 %) for the Jensen-Shannon divergence of usage that there would be over endless tasks.

    What chance adds is what exchanging the conditions within halves of the tasks gives, and is taken off. The variance
    has two parts: what exchanging gives, which there is without any difference, and what leaving each task out gives,
    which grows with the difference. A divergence is inside where the estimate is within Student's t standard errors of
    it, by the variance that there would be at that divergence. So 0 is inside unless there is more than chance gives.

    Parameters
    ----------
    a, b : ndarray [N, E]
        What each task adds to the usage of the experts, in the two conditions; two tasks or more have some.
    exchanged : ndarray [H, N]
        As `exchanged_halves` gives it.
    by_chance : ndarray [H]
        The divergences of `exchanged_distances`.

    Returns
    -------
    lo, hi : float
        From 0 to 1. The divergence itself may lie above `hi`: chance raises it.

    References
    ----------
    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927 (the variance at what is tested).
    Efron and Stein, The Jackknife Estimate of Variance, 1981 (leaving each task out).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.poisson([[40.0, 20.0], [20.0, 40.0]], size=(30, 2, 2)).swapaxes(0, 1).astype(float)
    >>> halves = exchanged_halves(30, 100, seed=0)
    >>> lo, hi = divergence_interval(a, b, halves, exchanged_distances(a, b, halves)[1])
    >>> truth = float(js_divergence(np.array([2 / 3, 1 / 3]), np.array([1 / 3, 2 / 3])))
    >>> bool(lo < truth < hi)
    True
    """
    total_a, total_b = a.sum(axis=0), b.sum(axis=0)
    found = float(js_divergence(shares(total_a), shares(total_b)))
    if found == 0:
        # Tasks that differ and cancel out tell nothing.
        return 0.0, float(by_chance.any())
    without = js_divergence(shares(total_a - a), shares(total_b - b))
    size = (a + b).sum(axis=1)
    n_tasks = int((size > 0).sum())
    variance = (n_tasks - 1) / n_tasks * float(((found - without[size > 0]) ** 2).sum())
    # Halves that are not of one size leave so much of a difference that there is.
    left = ((1 - 2 * exchanged) * (size / size.sum())).sum(axis=1)
    kept = 1 - float((left**2).mean())
    estimate = (found - float(by_chance.mean())) / max(kept, 0.5)
    t_squared = student_t(n_tasks) ** 2
    slope, always = variance / found, float(by_chance.var())
    # (estimate - J)² = t² (slope · J + always), solved for J.
    middle = estimate + t_squared * slope / 2
    half = np.sqrt(max(0.0, middle**2 - estimate**2 + t_squared * always))
    return float(np.clip(middle - half, 0.0, 1.0)), float(np.clip(middle + half, 0.0, 1.0))


def exchanged_halves(n_tasks: int, n_resamples: int, *, seed: int) -> Float64Array:
    """Draw random halves of the tasks; one task of an odd number is on neither side more often than the other.

    Returns
    -------
    ndarray of float64 [n_resamples, N]
        1 for the tasks of the half, else 0.

    Examples
    --------
    >>> exchanged_halves(4, 3, seed=0).sum(axis=1).tolist()
    [2.0, 2.0, 2.0]
    """
    rng = np.random.default_rng(seed)
    half = n_tasks // 2 + (rng.integers(2, size=(n_resamples, 1)) if n_tasks % 2 else 0)
    order = rng.random((n_resamples, n_tasks)).argsort(axis=1).argsort(axis=1)
    return (order < half).astype(np.float64)


def _x_log_x(x: Float64Array) -> Float64Array:
    """Give x ln x, and 0 for 0."""
    # The smallest number has a finite logarithm, which 0 takes away.
    found: Float64Array = np.log(np.maximum(x, np.finfo(np.float64).tiny)) * x
    return found

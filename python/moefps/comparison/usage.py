"""How differently two conditions use the experts of a layer."""

from __future__ import annotations

import numpy as np

from moefps._typing import Float64Array

_ENTRIES = 1 << 21
"""Shares that are exchanged at a time."""

__all__ = ["exchanged_halves", "exchanged_tv", "js_divergence", "shares", "total_variation", "usage_entropy"]


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


def exchanged_tv(a: Float64Array, b: Float64Array, *, n_resamples: int, seed: int) -> Float64Array:
    """Give the mean total variation of usage when the conditions are exchanged within random halves of the tasks.

    That is what chance alone makes of it: total variation is never negative, so it has no interval around 0.

    Parameters
    ----------
    a, b : ndarray [N, ..., E]
        What each task adds to the usage of the experts, in the two conditions.
    n_resamples : int
        Random halves.
    seed : int
        Of the generator.

    Returns
    -------
    ndarray [...]
        NaN where there is no usage.

    Examples
    --------
    >>> a = np.array([[[4.0, 0.0]], [[4.0, 0.0]]])
    >>> exchanged_tv(a, a[..., ::-1], n_resamples=20, seed=0).tolist()
    [0.0]
    """
    exchanged = exchanged_halves(len(a), n_resamples, seed=seed)
    total_a, total_b = a.sum(axis=0), b.sum(axis=0)
    found = np.zeros(a.shape[1:-1])
    size = max(1, _ENTRIES // max(1, total_a.size))
    for first in range(0, n_resamples, size):
        moved = np.tensordot(exchanged[first : first + size], a - b, axes=1)
        found += total_variation(shares(total_a - moved), shares(total_b + moved)).sum(axis=0)
    return found / n_resamples


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

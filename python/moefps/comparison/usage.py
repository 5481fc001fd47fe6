"""How differently two conditions use the experts of a layer."""

from __future__ import annotations

import numpy as np

from moefps._typing import Float64Array

__all__ = ["exchanged_tv", "js_divergence", "shares", "total_variation", "usage_entropy"]


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
    middle = (u + v) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.where(u > 0, u * np.log2(u / middle), np.where(np.isnan(u), np.nan, 0.0))
        right = np.where(v > 0, v * np.log2(v / middle), np.where(np.isnan(v), np.nan, 0.0))
    found: Float64Array = np.maximum(0.0, (left.sum(axis=-1) + right.sum(axis=-1)) / 2)
    return found


def usage_entropy(u: Float64Array) -> Float64Array:
    """Give the entropy along the last axis, in nats.

    Examples
    --------
    >>> round(float(usage_entropy(np.array([0.5, 0.5, 0.0]))), 4)
    0.6931
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(u > 0, -u * np.log(u), np.where(np.isnan(u), np.nan, 0.0))
    found: Float64Array = terms.sum(axis=-1)
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
    n_tasks = len(a)
    rng = np.random.default_rng(seed)
    exchanged = np.zeros((n_resamples, n_tasks))
    for row in exchanged:
        # One task of an odd number is on neither side more often than the other.
        half = n_tasks // 2 + int(n_tasks % 2 and rng.integers(2))
        row[rng.permutation(n_tasks)[:half]] = 1.0
    kept = 1.0 - exchanged
    total = np.zeros(a.shape[1:-1])
    for stay, swap in zip(kept, exchanged, strict=True):
        first = np.tensordot(stay, a, axes=1) + np.tensordot(swap, b, axes=1)
        other = np.tensordot(stay, b, axes=1) + np.tensordot(swap, a, axes=1)
        total += total_variation(shares(first), shares(other))
    found: Float64Array = total / n_resamples
    return found

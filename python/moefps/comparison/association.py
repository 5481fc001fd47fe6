"""How two differences of usage go together over the experts of a layer, and how sure that is."""

from __future__ import annotations

import numpy as np

from moefps._typing import Float64Array

__all__ = ["benjamini_hochberg", "pearson", "sign_flip_p", "slope", "spearman"]

_DECIMALS = 12
"""Values that are equal to so many decimals are ties."""
_FLIPS = 1 << 12
"""Flips that are drawn at a time."""


def pearson(x: Float64Array, y: Float64Array) -> Float64Array:
    """Give Pearson's correlation along the last axis.

    Parameters
    ----------
    x, y : ndarray [..., E]
        Two values for each expert.

    Returns
    -------
    ndarray [...]
        NaN where one of them is the same for all experts.

    Examples
    --------
    >>> float(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])))
    1.0
    """
    dx, dy = _centred(x), _centred(y)
    size = np.sqrt((dx**2).sum(axis=-1) * (dy**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        r: Float64Array = (dx * dy).sum(axis=-1) / size
    return np.where(size > 0, np.clip(r, -1.0, 1.0), np.nan)


def spearman(x: Float64Array, y: Float64Array) -> Float64Array:
    """Give Spearman's rank correlation along the last axis; values equal to 12 decimals share their mean rank.

    Parameters
    ----------
    x, y : ndarray [..., E]
        Two values for each expert.

    Returns
    -------
    ndarray [...]
        NaN where all are ties.

    Examples
    --------
    >>> float(spearman(np.array([1.0, 2.0, 3.0, 3.0]), np.array([1.0, 4.0, 9.0, 9.0])))
    1.0
    """
    return pearson(_ranks(np.round(x, _DECIMALS)), _ranks(np.round(y, _DECIMALS)))


def slope(x: Float64Array, y: Float64Array) -> Float64Array:
    """Give the slope of the least-squares line of y on x along the last axis; NaN where x does not vary.

    Examples
    --------
    >>> float(slope(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])))
    2.0
    """
    dx, dy = _centred(x), _centred(y)
    spread = (dx**2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Float64Array = (dx * dy).sum(axis=-1) / spread
    return np.where(spread > 0, found, np.nan)


def sign_flip_p(x: Float64Array, y: Float64Array, *, n_resamples: int, seed: int) -> Float64Array:
    """Test whether two differences of usage go together, by flipping the signs of the first at random per expert.

    The statistic is ``|Σ_e x[e]·y[e]|``; under the null, a difference is as likely in either direction.

    Parameters
    ----------
    x, y : ndarray [L, E]
        Differences of usage; 0 for experts that a layer has not.
    n_resamples : int
        Random flips.
    seed : int
        Of the generator; each layer has a stream of its own, so that it does not depend on the others.

    Returns
    -------
    ndarray [L]
        ``(1 + #{at least as large}) / (1 + n_resamples)``.

    Examples
    --------
    >>> x = np.array([[0.1, -0.2, 0.3, -0.1, 0.2, -0.3, 0.1, -0.1]])
    >>> float(sign_flip_p(x, x, n_resamples=999, seed=0)[0]) < 0.05
    True
    """
    products = x * y
    observed = np.abs(products.sum(axis=-1))
    # Sums in another order differ in the last place; what is equal but for that counts as as large.
    slack = 1e-12 * np.abs(products).sum(axis=-1)
    found = np.empty(len(products))
    for layer, (row, least) in enumerate(zip(products, observed - slack, strict=True)):
        rng = np.random.default_rng([seed, layer])
        n_larger = 0
        for first in range(0, n_resamples, _FLIPS):
            shape = min(_FLIPS, n_resamples - first), row.size
            signs = rng.integers(0, 2, size=shape, dtype=np.int8) * 2 - 1
            n_larger += int((np.abs(signs @ row) >= least).sum())
        found[layer] = (1 + n_larger) / (1 + n_resamples)
    return found


def benjamini_hochberg(p: Float64Array) -> Float64Array:
    """Adjust p values so that a threshold on them bounds the expected share of false discoveries.

    Parameters
    ----------
    p : ndarray [L]
        p values; NaN where there is none, which counts as no test.

    Returns
    -------
    ndarray [L]
        q values; NaN where p is.

    References
    ----------
    Benjamini and Hochberg, Controlling the False Discovery Rate, 1995.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, np.nan])).round(3).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raised = p[order] * len(order) / np.arange(1, len(order) + 1)
    q = np.full(p.shape, np.nan)
    q[order] = np.minimum(1.0, np.minimum.accumulate(raised[::-1])[::-1])
    return q


def _centred(x: Float64Array) -> Float64Array:
    """Take the mean off; what rounding leaves of equal values is nothing."""
    off = x - x.mean(axis=-1, keepdims=True)
    same = (x == x[..., :1]).all(axis=-1, keepdims=True)
    return np.where(same, 0.0, off)


def _ranks(x: Float64Array) -> Float64Array:
    """Give ranks from 1 along the last axis, the mean rank to ties."""
    flat = x.reshape(-1, x.shape[-1])
    ranks = np.empty(flat.shape)
    for row, out in zip(flat, ranks, strict=True):
        _, place, count = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(count)
        out[:] = (last - (count - 1) / 2)[place]
    return ranks.reshape(x.shape)

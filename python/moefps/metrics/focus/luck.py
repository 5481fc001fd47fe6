"""The focus degree that luck alone gives to experts with few activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moefps.metrics.focus.degree import compute_degrees

if TYPE_CHECKING:
    from moefps._typing import Float64Array, IndexArray

__all__ = ["expected_by_luck"]

_SIZES = 48
"""Numbers of activations that are simulated; others lie between them."""
_DRAWS = 500
_MOST_CELLS = 1 << 22
_DECIMALS = 3
"""Layers whose domains have shares of tokens that are equal to so many decimals are simulated once."""


def expected_by_luck(counted: IndexArray, place: IndexArray, n_tokens: IndexArray) -> tuple[Float64Array, Float64Array]:
    """Give the mean focus degree of experts that do not look at domains, with so many activations of equal size.

    Each activation falls on a domain with the probability of its share of the tokens. The means are simulated, always
    with the same random numbers; for ever more activations they go to the chance level.

    Parameters
    ----------
    counted : ndarray of int64 [n]
        Activations of each expert that count.
    place : ndarray of int64 [n]
        Which layer each is of.
    n_tokens : ndarray of int64 [L, D]
        The tokens of each domain, in each layer.

    Returns
    -------
    plain, balanced : ndarray of float64 [n]
        In percent; NaN for experts without activations.

    Examples
    --------
    >>> plain, _ = expected_by_luck(np.array([1, 2, 10**9]), np.zeros(3, int), np.array([[50, 50]]))
    >>> plain.round().tolist()
    [100.0, 75.0, 50.0]
    """
    found = np.full((2, len(counted)), np.nan)
    shares = n_tokens / np.maximum(n_tokens.sum(axis=1, keepdims=True), 1)
    # The first layer of a kind stands for all.
    _, first, kind = np.unique(shares.round(_DECIMALS), axis=0, return_index=True, return_inverse=True)
    kind = kind.reshape(-1)[place]
    for number, layer in enumerate(first.tolist()):
        members = np.flatnonzero((kind == number) & (counted > 0))
        if len(members):
            sizes = counted[members]
            tried, means = _simulate(int(sizes.max()), n_tokens[layer])
            for which in range(2):
                found[which, members] = np.interp(np.log(sizes), np.log(tried), means[which])
    return found[0], found[1]


def _simulate(largest: int, n_tokens: IndexArray) -> tuple[IndexArray, Float64Array]:
    """Give the sizes that were tried, and the mean degrees of each, plain and balanced."""
    tried = np.unique(np.geomspace(1, largest, _SIZES).round().astype(np.int64))
    tokens = n_tokens[n_tokens > 0]
    draws = max(20, min(_DRAWS, _MOST_CELLS // (len(tried) * len(tokens))))
    rng = np.random.default_rng(0)
    means = np.empty((2, len(tried)))
    for i, size in enumerate(tried.tolist()):
        drawn = rng.multinomial(size, tokens / tokens.sum(), size=draws)
        means[0, i] = compute_degrees(drawn.astype(np.float64)).degree.mean()
        means[1, i] = compute_degrees(drawn / tokens).degree.mean()
    return tried, means

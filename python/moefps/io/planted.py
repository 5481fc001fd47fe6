"""Planted fingerprints: made on the spot, with behaviours that are known.

They stand in for captured routing in tests and benchmarks. Nothing measured on them says anything about a real model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moefps.errors import ArgumentError

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray

__all__ = ["Planted", "planted_fingerprints"]

_CHUNK_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class Planted:
    """Planted fingerprints and the behaviour of every sample.

    Attributes
    ----------
    array : float32 ndarray of shape [N, L, E]
        Rows sum to 1.
    labels : int64 ndarray of shape [N]
        The behaviour of every sample, 0 the most frequent.
    sizes : int64 ndarray of shape [n_behaviours]
        Samples of every behaviour, largest first.
    """

    array: npt.NDArray[np.float32]
    labels: IndexArray
    sizes: IndexArray


def planted_fingerprints(
    n_samples: int = 2000,
    n_layers: int = 24,
    n_experts: int = 64,
    *,
    n_behaviours: int = 12,
    rarest: int = 3,
    contrast: float = 0.25,
    n_tokens: int = 200,
    seed: int = 0,
) -> Planted:
    """Make fingerprints of samples that follow a few behaviours of very uneven size.

    Every layer has a usage of experts that all samples share. A behaviour mixes a usage of its own into it. A sample
    is its behaviour with the scatter that a text of about `n_tokens` tokens would show (a Dirichlet draw).

    Parameters
    ----------
    n_samples, n_layers, n_experts : int
        The shape, [N, L, E].
    n_behaviours : int
        How many behaviours there are.
    rarest : int
        Samples of the rarest behaviour; the others grow in equal ratios up to the most frequent.
    contrast : float
        Share of its own in the usage of a behaviour, from 0 (all alike) to 1.
    n_tokens : int
        Length of a text; more means less scatter.
    seed : int
        The same seed gives the same bits on one version of numpy.

    Returns
    -------
    Planted

    Raises
    ------
    ArgumentError
        A size is too small, or `contrast` is outside 0 to 1.

    Examples
    --------
    >>> planted = planted_fingerprints(100, 2, 8, n_behaviours=4)
    >>> planted.array.shape, int(planted.sizes.min()), int(planted.sizes.sum())
    ((100, 2, 8), 3, 100)
    """
    if n_layers < 1 or n_experts < 2:
        raise ArgumentError(f"n_layers, n_experts: found {n_layers}, {n_experts}; accepted: at least 1 and 2")
    if rarest < 1 or n_behaviours < 1 or n_samples < rarest * n_behaviours:
        raise ArgumentError(
            f"n_samples: found {n_samples}; accepted: at least rarest * n_behaviours = {rarest * n_behaviours}"
        )
    if not 0 <= contrast <= 1 or n_tokens < 1:
        raise ArgumentError(f"contrast, n_tokens: found {contrast}, {n_tokens}; accepted: 0 to 1 and at least 1")
    rng = np.random.default_rng(seed)
    sizes = _uneven_sizes(n_samples, n_behaviours, rarest)
    labels = rng.permutation(np.repeat(np.arange(n_behaviours), sizes)).astype(np.int64)
    # A few experts take most of a layer's tokens, as trained routers have it.
    shared = rng.dirichlet(np.full(n_experts, 0.5), size=(1, n_layers))
    own = rng.dirichlet(np.full(n_experts, 0.2), size=(n_behaviours, n_layers))
    usage = ((1 - contrast) * shared + contrast * own) * n_tokens
    array = np.empty((n_samples, n_layers, n_experts), dtype=np.float32)
    step = max(1, _CHUNK_ROWS // n_layers)
    for start in range(0, n_samples, step):
        # The floor keeps the draws of a whole row from all vanishing in float32.
        concentration = np.maximum(usage[labels[start : start + step]], 1e-3)
        draws = rng.standard_gamma(concentration.astype(np.float32), dtype=np.float32)
        array[start : start + step] = draws / draws.sum(axis=2, keepdims=True, dtype=np.float64)
    return Planted(array, labels, sizes)


def _uneven_sizes(n_samples: int, n_behaviours: int, rarest: int) -> IndexArray:
    """Give sizes in equal ratios, from the rarest up, that add up to all samples."""
    low, high = 1.0, float(n_samples)
    for _ in range(60):
        ratio = (low + high) / 2
        # In logarithms, as a high ratio to a high power overflows.
        too_many = np.logaddexp.reduce(np.arange(n_behaviours) * np.log(ratio)) > np.log(n_samples / rarest)
        low, high = (low, ratio) if too_many else (ratio, high)
    sizes: IndexArray = np.maximum(np.floor(rarest * low ** np.arange(n_behaviours)), rarest).astype(np.int64)[::-1]
    sizes[0] += n_samples - sizes.sum()
    return sizes.copy()

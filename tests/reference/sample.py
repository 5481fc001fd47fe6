"""Fingerprints of every kind that has ever made a distance go wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
Maker = Callable[[np.random.Generator, int, int, int], Float64Array]


def _dirichlet(alpha: float) -> Maker:
    def draw(rng: np.random.Generator, n: int, n_layers: int, n_experts: int) -> Float64Array:
        # Gamma draws of a tiny shape underflow to rows of zeros, so every entry keeps a crumb.
        mass = rng.standard_gamma(alpha, (n, n_layers, n_experts)) + 1e-12
        return mass / mass.sum(axis=2, keepdims=True)

    return draw


def _sparse(rng: np.random.Generator, n: int, n_layers: int, n_experts: int) -> Float64Array:
    """At most six experts of each layer get anything, as for a single token."""
    mass = rng.random((n, n_layers, n_experts))
    rank = mass.argsort(axis=2).argsort(axis=2)
    mass[rank < n_experts - 6] = 0.0
    return mass / mass.sum(axis=2, keepdims=True)


def _one_hot(rng: np.random.Generator, n: int, n_layers: int, n_experts: int) -> Float64Array:
    return _place(1.0, rng.integers(n_experts, size=(n, n_layers)), n_experts)


def _place(mass: float, experts: npt.NDArray[np.int64], n_experts: int) -> Float64Array:
    """Rows that have ``mass`` at one expert and nothing elsewhere."""
    X = np.zeros((*experts.shape, n_experts))
    np.put_along_axis(X, experts[..., None], mass, axis=-1)
    return X


def _near_duplicate(rng: np.random.Generator, n: int, n_layers: int, n_experts: int) -> Float64Array:
    """Three different samples, one-hot; all others are copies with 1e-9 of each row moved to another expert."""
    hot = rng.integers(n_experts, size=(3, n_layers))[np.arange(n) % 3]
    cold = (hot + rng.integers(1, n_experts, size=(n, n_layers))) % n_experts
    X = _place(1.0, hot, n_experts)
    X[3:] += _place(1e-9, cold[3:], n_experts) - _place(1e-9, hot[3:], n_experts)
    return X


def _uniform(rng: np.random.Generator, n: int, n_layers: int, n_experts: int) -> Float64Array:
    return np.full((n, n_layers, n_experts), 1.0 / n_experts)


def _counts(rng: np.random.Generator, n: int, n_layers: int, n_experts: int) -> Float64Array:
    """Shares of eight assignments: few values, so many equal distances."""
    picks = rng.integers(n_experts, size=(8, n, n_layers))
    return sum((_place(0.125, pick, n_experts) for pick in picks), np.zeros((n, n_layers, n_experts)))


def _duplicates(rng: np.random.Generator, n: int, n_layers: int, n_experts: int) -> Float64Array:
    """About n / 3 different samples, each several times, shuffled."""
    distinct = _dirichlet(0.5)(rng, max(1, n // 3), n_layers, n_experts)
    return distinct[rng.integers(len(distinct), size=n)]


KINDS: dict[str, Maker] = {
    "dirichlet_0.03": _dirichlet(0.03),
    "dirichlet_1": _dirichlet(1.0),
    "dirichlet_100": _dirichlet(100.0),
    "sparse": _sparse,
    "one_hot": _one_hot,
    "near_duplicate": _near_duplicate,
    "uniform": _uniform,
    "counts": _counts,
    "duplicates": _duplicates,
}


def make(kind: str, n: int, n_layers: int, n_experts: int, seed: int = 0) -> Float64Array:
    """Fingerprints of one kind, float64 of shape (n, n_layers, n_experts), the same for the same arguments."""
    return KINDS[kind](np.random.default_rng(seed), n, n_layers, n_experts)

"""Distances between fingerprints, one SciPy call a pair of rows."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import wasserstein_distance

Float64Array: TypeAlias = npt.NDArray[np.float64]
Ground: TypeAlias = str | npt.NDArray[Any]


def row_distance(p: npt.ArrayLike, q: npt.ArrayLike, ground: Ground = "index") -> float:
    """Distance between two rows of one layer.

    Parameters
    ----------
    p, q : array_like of shape (E,)
        Non-negative rows; each is divided by its own sum in float64 first.
    ground : {"index", "values", "discrete"} or array of shape (E,)
        How far two experts are apart; an array puts the experts on a line.

    Returns
    -------
    float
        What SciPy says, or the total variation for ``"discrete"``.
    """
    p = np.asarray(p, dtype=np.float64)
    q = np.asarray(q, dtype=np.float64)
    p = p / p.sum()
    q = q / q.sum()
    if not isinstance(ground, str):
        return float(wasserstein_distance(ground, ground, p, q))
    if ground == "index":
        experts = np.arange(p.size)
        return float(wasserstein_distance(experts, experts, p, q))
    if ground == "values":
        return float(wasserstein_distance(p, q))
    if ground == "discrete":
        return float(np.abs(p - q).sum() / 2)
    raise AssertionError(ground)


def layer_scales(n_layers: int, reduce: str, layer_weights: npt.ArrayLike | None) -> Float64Array:
    """What each layer's distance is multiplied by before all are added: shape (L,)."""
    weights = np.ones(n_layers) if layer_weights is None else np.asarray(layer_weights, dtype=np.float64)
    return weights / weights.sum() if reduce == "mean" else weights


def layer_ground(ground: Ground, layer: int) -> Ground:
    """The ground of one layer: a word stays, positions of shape (L, E) give their row."""
    return ground if isinstance(ground, str) or ground.ndim == 1 else ground[layer]


def distance(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    *,
    ground: Ground = "index",
    reduce: str = "sum",
    layer_weights: npt.ArrayLike | None = None,
) -> float:
    """Distance between two fingerprints of shape (L, E)."""
    scales = layer_scales(a.shape[0], reduce, layer_weights)
    return float(sum(s * row_distance(a[i], b[i], layer_ground(ground, i)) for i, s in enumerate(scales)))


def cross(X: npt.NDArray[Any], Y: npt.NDArray[Any], **how: Any) -> Float64Array:
    """Distances between every row of X (N, L, E) and of Y (M, L, E): shape (N, M)."""
    return np.array([[distance(x, y, **how) for y in Y] for x in X], dtype=np.float64)


def matrix(X: npt.NDArray[Any], **how: Any) -> Float64Array:
    """All distances inside X (N, L, E): shape (N, N), each pair computed once."""
    n = len(X)
    D = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            D[i, j] = D[j, i] = distance(X[i], X[j], **how)
    return D


def features(
    X: npt.NDArray[Any],
    *,
    ground: Ground = "index",
    reduce: str = "sum",
    layer_weights: npt.ArrayLike | None = None,
) -> Float64Array:
    """The vectors whose L1 distances are the distances above: shape (N, L * E), float64.

    Quicker than :func:`matrix` where many pairs are wanted; ``test_reference.py`` shows that both agree.
    """
    X = np.asarray(X, dtype=np.float64)
    X = X / X.sum(axis=2, keepdims=True)
    n, n_layers, n_experts = X.shape
    out = np.zeros_like(X)
    for layer, scale in enumerate(layer_scales(n_layers, reduce, layer_weights)):
        rows = X[:, layer]
        here = layer_ground(ground, layer)
        if not isinstance(here, str):
            order = np.argsort(here, kind="stable")
            gaps = np.append(np.diff(here[order].astype(np.float64)), 0.0)
            out[:, layer] = scale * np.cumsum(rows[:, order], axis=1) * gaps
        elif here == "index":
            out[:, layer] = scale * np.cumsum(rows, axis=1)
            out[:, layer, -1] = 0.0
        elif here == "values":
            out[:, layer] = scale * np.sort(rows, axis=1) / n_experts
        else:
            out[:, layer] = scale * rows / 2
    return out.reshape(n, -1)

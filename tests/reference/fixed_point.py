"""The arithmetic of ``dtype="float32"``, number for number, to check results bit for bit.

This is no measure of what is right (``ground.py`` is): it states which of the allowed answers the fast code gives. For
every row p of a layer, in the order of the ground:

1. ``f``: running sums of p in float64, one after the other (values: p sorted; discrete: p itself); ``s``: the sum of p.
2. ``scale``: the layer's factor times the gap to the next expert (values: / E; discrete: / 2); ``unit``: the largest.
3. feature = floor(f * (1 / s) * (scale / unit * (2**31 - 1)) + 0.5), a whole number.
4. distance = (sum of |feature - feature|, exact) * (unit / (2**31 - 1)).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from reference.ground import Ground, layer_ground, layer_scales

ONE = 2**31 - 1


def fixed_point_features(
    X: npt.NDArray[Any],
    *,
    ground: Ground = "index",
    reduce: str = "sum",
    layer_weights: npt.ArrayLike | None = None,
) -> tuple[npt.NDArray[np.int64], float]:
    """Whole-number features (N, L * F) and the distance that a difference of 1 stands for."""
    n, n_layers, n_experts = X.shape
    factors = layer_scales(n_layers, reduce, layer_weights)
    blocks, scales = [], []
    for layer, factor in enumerate(factors):
        rows = X[:, layer].astype(np.float64)
        here = layer_ground(ground, layer)
        if isinstance(here, str):
            values = {"index": np.cumsum(rows, axis=1)[:, :-1], "values": np.sort(rows, axis=1), "discrete": rows}[here]
            width = {"index": 1.0, "values": 1.0 / n_experts, "discrete": 0.5}[here]
            scale = np.full(values.shape[1], factor / n_experts if here == "values" else factor * width)
            total = np.cumsum(rows, axis=1)[:, -1:]
        else:
            order = np.argsort(here, kind="stable")
            sums = np.cumsum(rows[:, order], axis=1)
            values, total = sums[:, :-1], sums[:, -1:]
            scale = factor * np.diff(here[order].astype(np.float64))
        blocks.append(values * (1.0 / total))
        scales.append(scale)
    unit = float(max(scale.max() for scale in scales))
    if unit == 0.0:
        return np.zeros((n, sum(map(len, scales))), dtype=np.int64), 0.0
    fixed = [
        np.minimum(np.floor(block * (scale / unit * ONE) + 0.5), ONE)
        for block, scale in zip(blocks, scales, strict=True)
    ]
    return np.concatenate(fixed, axis=1).astype(np.int64), unit / ONE


def fixed_point_sums(features: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Exact whole-number L1 distances between features: shape (N, N)."""
    return np.array([np.abs(features - row).sum(axis=1) for row in features])


def fixed_point_matrix(X: npt.NDArray[Any], **how: Any) -> npt.NDArray[np.float32]:
    """What ``wasserstein_matrix(X, dtype="float32")`` gives, bit for bit."""
    features, unit = fixed_point_features(X, **how)
    return (fixed_point_sums(features) * unit).astype(np.float32)

"""How far the fast code may be from the exact answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reference.ground import Float64Array, Ground, layer_scales


def largest_gap(ground: Ground) -> float:
    """The largest distance between neighbouring experts: 1 for the three named grounds."""
    if isinstance(ground, str):
        return 1.0
    return float(np.diff(np.sort(np.atleast_2d(ground).astype(np.float64), axis=1), axis=1).max())


def allowed_error(
    D: Float64Array,
    n_layers: int,
    n_experts: int,
    *,
    dtype: str = "float32",
    ground: Ground = "index",
    reduce: str = "sum",
    layer_weights: npt.ArrayLike | None = None,
) -> Float64Array:
    """The error that the documented precision allows for exact distances D.

    float32: ``1e-6 * d + L * E * 2**-31 * (largest gap) * (largest layer weight)``.
    float64: ``1e-12 * max(1, d)``, in the unit of the ground: 1 for the named grounds, the largest gap for positions
    that are farther apart. A CDF in float64 is known to about 1e-16, and a gap of 1e6 makes 1e-10 of that, for SciPy
    too.
    """
    gap = largest_gap(ground)
    scale = float(layer_scales(n_layers, reduce, layer_weights).max())
    if dtype == "float32":
        return 1e-6 * D + n_layers * n_experts * 2.0**-31 * gap * scale
    unit = max(1.0, gap) * max(1.0, scale)
    return 1e-12 * np.maximum(unit, D)

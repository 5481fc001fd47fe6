"""How far from float64 SciPy: the largest error, as a share of what the documentation allows."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

import moefps

from .data import ROOT, windows
from .timing import say

# Samples, layers, experts. The pairs and layers are one SciPy call each.
FULL = ((10, 26, 64), (4, 78, 256))
QUICK = ((4, 3, 16),)

KINDS = {
    "random": "dirichlet_1",
    "sparse": "sparse",
    "one-hot": "one_hot",
    "near-duplicate": "near_duplicate",
}


def main(*, quick: bool) -> list[dict[str, Any]]:
    """Find the largest error for every ground, dtype and kind of data."""
    # The plain versions that the tests use, too.
    sys.path.insert(0, str(ROOT / "tests"))
    import reference

    say("precision")
    data = {
        name: [reference.make(kind, *shape) for shape in (QUICK if quick else FULL)] for name, kind in KINDS.items()
    }
    real = windows(small=True)
    data[real.name] = [real.array[:: max(1, len(real.array) // 9)][: 4 if quick else 10]]
    rows = []
    for name, arrays in data.items():
        for ground in ("index", "values", "discrete", "positions"):
            worst = {"float32": 0.0, "float64": 0.0}
            for X in arrays:
                how: dict[str, Any] = {"ground": _positions(X) if ground == "positions" else ground}
                exact = reference.matrix(X, **how)
                for dtype, before in worst.items():
                    found = moefps.wasserstein_matrix(X, dtype=dtype, **how)
                    allowed = reference.allowed_error(exact, *X.shape[1:], dtype=dtype, **how)
                    worst[dtype] = max(before, float(np.max(np.abs(found - exact) / allowed)))
            rows.append({"data": name, "ground": ground, "shapes": [X.shape for X in arrays], **worst})
    return rows


def _positions(X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Places for the experts of every layer, a gap between neighbours about 1."""
    _, n_layers, n_experts = X.shape
    return np.random.default_rng(3).random((n_layers, n_experts)) * n_experts

"""Fingerprints, grounds and layouts for hypothesis to play with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

import reference

DTYPES = st.sampled_from(["float32", "float64"])


@st.composite
def fingerprints(draw: st.DrawFn, min_samples: int = 2, max_samples: int = 24) -> npt.NDArray[Any]:
    """Samples of a random kind, shape, float type and memory layout."""
    n = draw(st.integers(min_samples, max_samples))
    n_layers = draw(st.integers(1, 4))
    n_experts = draw(st.integers(2, 40))
    kind = draw(st.sampled_from(sorted(reference.KINDS)))
    X = reference.make(kind, n, n_layers, n_experts, seed=draw(st.integers(0, 2**32 - 1)))
    X = X.astype(draw(st.sampled_from(["float16", "float32", "float64"])))
    layout = draw(st.sampled_from(["c", "fortran", "reversed", "strided"]))
    if layout == "fortran":
        return np.asfortranarray(X)
    if layout == "reversed":
        return X[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    if layout == "strided":
        return np.repeat(X, 2, axis=2)[:, :, ::2]
    return X


@st.composite
def grounds(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """A ground that fits fingerprints of ``shape``."""
    word = draw(st.sampled_from(["index", "values", "discrete", "positions", "layer_positions"]))
    _, n_layers, n_experts = shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if word == "positions":
        return rng.integers(0, 2 * n_experts, size=n_experts) * 0.5
    if word == "layer_positions":
        return rng.normal(scale=10.0, size=(n_layers, n_experts))
    return word


@st.composite
def layer_options(draw: st.DrawFn, n_layers: int) -> dict[str, Any]:
    """Arguments that say how the layers are put together."""
    options: dict[str, Any] = {"reduce": draw(st.sampled_from(["sum", "mean"]))}
    if draw(st.booleans()):
        weight = st.sampled_from([0.0, 0.001, 0.5, 1.0, 30.0])
        weights = draw(st.lists(weight, min_size=n_layers, max_size=n_layers).filter(any))
        options["layer_weights"] = weights
    return options

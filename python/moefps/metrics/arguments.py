"""Checks of what people pass to routing metrics: one line each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, DumpError
from moefps.kernels import check_count, check_seed
from moefps.metrics.resampling import Resampling

if TYPE_CHECKING:
    from moefps._typing import IndexArray
    from moefps.io import Dump

__all__ = ["check_factor", "check_layers", "check_numbers", "check_resampling"]


def check_layers(dump: Dump, layers: Sequence[int] | int | None) -> IndexArray:
    """Give the numbers of the layers that are meant, of a dump that has some and whose layers are possible."""
    if not dump.n_layers:
        raise DumpError(f"{dump.path}: has no layers; accepted: a dump of a model with routers")
    chosen = np.arange(dump.n_layers) if layers is None else check_numbers(layers, dump.n_layers)
    for i in chosen.tolist():
        info = dump.layers[i]
        if info.top_k > info.n_experts:
            raise DumpError(
                f"{dump.path}: layer {i} ({info.path}) has top_k {info.top_k} of {info.n_experts} experts; "
                f"accepted: at most as many as experts"
            )
    return chosen


def check_numbers(layers: Sequence[int] | int, n_layers: int) -> IndexArray:
    """Give layer numbers as an array."""
    accepted = f"integers of 0 to {n_layers - 1}, each once"
    given: Any = [layers] if isinstance(layers, int | np.integer) else layers
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        raise ArgumentError(f"layers: {layers!r}; accepted: {accepted}")
    found = [check_count("layers", number, accepted) for number in given]
    wrong = next((n for n in found if not 0 <= n < n_layers), None)
    if wrong is not None or not found or len(set(found)) < len(found):
        raise ArgumentError(f"layers: {found if wrong is None else wrong}; accepted: {accepted}")
    return np.array(found, dtype=np.int64)


def check_factor(factor: Any) -> float:
    """Give a capacity factor."""
    if isinstance(factor, bool) or not isinstance(factor, int | float | np.number) or not 0 < factor < math.inf:
        raise ArgumentError(f"capacity_factor: {factor!r}; accepted: a number > 0")
    return float(factor)


def check_resampling(ci: Any, n_resamples: Any, seed: Any) -> Resampling | None:
    """Give how to resample; None where no intervals are wanted."""
    accepted = "an integer >= 1"
    number = check_count("n_resamples", n_resamples, accepted)
    if number < 1:
        raise ArgumentError(f"n_resamples: {number}; accepted: {accepted}")
    checked = check_seed("seed", seed)
    if checked is None:
        raise ArgumentError("seed: None; accepted: an integer >= 0")
    if ci is None:
        return None
    if isinstance(ci, bool) or not isinstance(ci, int | float | np.number) or not 0 < ci < 1:
        raise ArgumentError(f"ci: {ci!r}; accepted: a number between 0 and 1, such as 0.95, or None")
    return Resampling(float(ci), number, checked)

"""Fingerprints to measure on, and the features between which the distance is an L1 distance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps.io.planted import planted_fingerprints

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT.parent / "shared" / "data" / "esft" / "esft_traces.npz"

N_EXPERTS = 64
WINDOW, STRIDE = 32, 8


@dataclass(frozen=True)
class Data:
    """An array [N, L, E] and what it is, in words."""

    name: str
    array: npt.NDArray[Any]

    @property
    def shape(self) -> str:
        """Such as "3,431 x 26 x 64"."""
        return " x ".join(f"{size:,}" for size in self.array.shape)


def random_fingerprints(n: int, n_layers: int, n_experts: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows drawn evenly from all distributions (Dirichlet, all parameters 1)."""
    X = np.random.default_rng(seed).standard_exponential((n, n_layers, n_experts), dtype=np.float32)
    return np.asarray(X / X.sum(axis=2, keepdims=True, dtype=np.float64), dtype=np.float32)


def windows(*, small: bool = False) -> Data:
    """Windows of 32 tokens over real traces, or planted ones of the same shape where the traces are missing."""
    if not TRACES.is_file():
        n = 200 if small else 3431
        planted = planted_fingerprints(n, 26, N_EXPERTS, n_tokens=WINDOW)
        return Data("planted windows (the real traces are missing)", planted.array)
    with np.load(TRACES) as arrays:
        offsets, experts = arrays["offsets"], arrays["expert_ids"]
        weights = arrays["weights"].astype(np.float64)
    weights /= weights.sum(axis=2, keepdims=True)
    starts = [t for a, b in pairwise(offsets) for t in range(a, b - WINDOW + 1, STRIDE)]
    if small:
        starts = starts[::16]
    X = np.zeros((len(starts), experts.shape[1], N_EXPERTS))
    layers = np.arange(experts.shape[1])[:, None]
    for i, start in enumerate(starts):
        for t in range(start, start + WINDOW):
            # The experts of a token and layer all differ, so no addition is lost.
            X[i, layers, experts[t]] += weights[t]
    return Data("ESFT windows", (X / WINDOW).astype(np.float32))


def planted(n: int, n_layers: int, n_experts: int) -> Data:
    """Planted fingerprints of another shape."""
    return Data(f"planted, {n_layers} x {n_experts}", planted_fingerprints(n, n_layers, n_experts, seed=1).array)


def cdf_features(X: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """CDFs over experts without the last column, which is 1 for all: [N, L * (E - 1)]."""
    features = np.empty((len(X), X.shape[1], X.shape[2] - 1), dtype=dtype)
    for i, sample in enumerate(X):
        sums = np.cumsum(sample, axis=1, dtype=np.float64)
        features[i] = sums[:, :-1] / sums[:, -1:]
    return features.reshape(len(X), -1)

"""All distances: `moefps.wasserstein_matrix` beside other libraries."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import moefps

from .bound import Ceiling
from .data import cdf_features, random_fingerprints
from .peers import WARM_UP_ROWS, Peer, installed, matrix_peers, scipy_loop
from .timing import Contender, race, say

Array = npt.NDArray[Any]

# Rows for the quick ones, rows for the slow ones, layers, experts, calls of the SciPy loop, pairs that are checked.
FULL = (2048, 512, 48, 128, 200, 2000)
QUICK = (256, 128, 8, 32, 20, 200)


def run(n_threads: int, *, quick: bool, ceiling_program: str | None) -> dict[str, Any]:
    """Time all contenders on `n_threads` threads."""
    n, n_slow, n_layers, n_experts, loop_rows, n_pairs = QUICK if quick else FULL
    runs = 2 if quick else 5
    X = random_fingerprints(n, n_layers, n_experts)
    features = {dtype: cdf_features(X, dtype) for dtype in ("float32", "float64")}
    check = _Check(features["float64"], n_pairs)
    contenders = [_ours(X, dtype, n_threads, runs, check) for dtype in ("float32", "float64")]
    for peer in matrix_peers(n_threads):
        F = features[peer.dtype][: n_slow if peer.slow else n]
        contenders.append(_theirs(peer, F, n, n_threads, runs, check))
    if installed("scipy"):
        contenders.append(scipy_loop(X, loop_rows, runs))
    ceiling = Ceiling(ceiling_program, n_threads, 20 if quick else 100) if ceiling_program else None
    say(f"matrix, {n_threads} threads")
    results = race(contenders, ceiling.measure if ceiling else None)
    return {
        "shape": X.shape,
        "elements": n * (n - 1) // 2 * features["float64"].shape[1],
        "contenders": results,
        "ceiling": ceiling.results() if ceiling else [],
    }


def _ours(X: Array, dtype: str, n_threads: int, runs: int, check: _Check) -> Contender:
    def call(rows: int = len(X)) -> Array:
        return moefps.wasserstein_matrix(X[:rows], dtype=dtype, n_threads=n_threads)

    inspect = check(len(X), "square")
    details = {"dtype": dtype, "threads": n_threads, "part": "", "ours": True}
    return Contender(
        f'moefps, dtype="{dtype}"', call, runs, warm_up=lambda: call(WARM_UP_ROWS), inspect=inspect, details=details
    )


def _theirs(peer: Peer, F: Array, n: int, n_threads: int, runs: int, check: _Check) -> Contender:
    rows, square = len(F), peer.form == "square"
    scale = (n / rows) ** 2 if square else n * (n - 1) / (rows * (rows - 1))
    return Contender(
        peer.name,
        lambda: peer.call(F),
        min(runs, peer.runs),
        scale,
        lambda: peer.call(F[:WARM_UP_ROWS]),
        check(rows, peer.form),
        {"dtype": peer.dtype, "threads": peer.threads or n_threads, "part": f"N = {rows}" if rows < n else ""},
    )


class _Check:
    """Holds answers against float64 sums over some of the pairs."""

    def __init__(self, features: Array, n_pairs: int) -> None:
        rng = np.random.default_rng(2)
        self._features = features
        self._unit = rng.random((n_pairs, 2))

    def __call__(self, rows: int, form: str) -> Callable[[Array], dict[str, float]]:
        """Return a function that finds the largest error, relative to the distance."""
        first, second = (self._unit * rows).astype(np.int64).T
        apart = first != second
        first, second = np.minimum(first, second)[apart], np.maximum(first, second)[apart]

        def largest_error(answer: Array) -> dict[str, float]:
            features = self._features
            exact = np.array([np.abs(features[i] - features[j]).sum() for i, j in zip(first, second, strict=True)])
            if form == "square":
                found = answer[first, second]
            else:
                found = answer[first * (2 * rows - first - 1) // 2 + second - first - 1]
            return {"error": float(np.max(np.abs(found - exact) / exact))}

        return largest_error


def main(n_threads: int, *, quick: bool, ceiling_program: str | None) -> dict[str, Any]:
    """As `run`, without the warnings of other libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(n_threads, quick=quick, ceiling_program=ceiling_program)

"""What other libraries offer for the same job, each as a contender; those that are not installed are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from .timing import Contender

Array = npt.NDArray[Any]

WARM_UP_ROWS = 64


@dataclass(frozen=True)
class Peer:
    """Another library's way from features to all L1 distances.

    `form` is "condensed" (a distance for each pair, as SciPy's pdist has them) or "square"; `threads` is how many it
    uses at most, None for as many as it is given. A slow one does fewer rows, and is timed less often.
    """

    name: str
    dtype: str
    form: str
    call: Callable[[Array], Array]
    threads: int | None = None
    slow: bool = False
    runs: int = 5


def installed(*modules: str) -> bool:
    """Whether all of these can be imported."""
    return all(find_spec(module) is not None for module in modules)


def matrix_peers(n_threads: int) -> Iterator[Peer]:
    """All peers that are installed."""
    if installed("torch"):
        import torch

        def torch_pdist(F: Array) -> Array:
            return torch.pdist(torch.from_numpy(F), p=1).numpy()

        def torch_cdist(F: Array) -> Array:
            features = torch.from_numpy(F)
            return torch.cdist(features, features, p=1).numpy()

        torch.set_grad_enabled(False)
        yield Peer("torch.pdist(p=1)", "float32", "condensed", torch_pdist)
        yield Peer("torch.cdist(p=1)", "float32", "square", torch_cdist, slow=True)
    if installed("numba"):
        from .compiled import numba_matrix

        for dtype in ("float32", "float64"):
            yield Peer("numba, written for this", dtype, "square", numba_matrix)
    if installed("scipy"):
        from scipy.spatial.distance import pdist

        yield Peer("scipy pdist(cityblock)", "float64", "condensed", lambda F: pdist(F, "cityblock"), threads=1, runs=3)
    if installed("sklearn"):
        from sklearn.metrics import pairwise_distances
        from sklearn.metrics.pairwise import manhattan_distances

        name = "scikit-learn manhattan_distances"
        yield Peer(name, "float64", "square", manhattan_distances, threads=1, slow=True)

        def in_threads(F: Array) -> Array:
            return pairwise_distances(F, metric="manhattan", n_jobs=n_threads)

        if n_threads > 1:
            name = f"scikit-learn pairwise_distances(n_jobs={n_threads})"
            yield Peer(name, "float64", "square", in_threads, slow=True)


def scipy_loop(X: Array, n_rows: int, runs: int, seed: int = 0) -> Contender:
    """One `scipy.stats.wasserstein_distance` for each pair and layer, timed on `n_rows` of them."""
    from scipy.stats import wasserstein_distance

    n, n_layers, n_experts = X.shape
    rng = np.random.default_rng(seed)
    experts = np.arange(n_experts)
    chosen = rng.integers((n, n, n_layers), size=(n_rows, 3))
    rows = [(X[i, layer], X[j, layer]) for i, j, layer in chosen]

    def loop() -> None:
        for p, q in rows:
            wasserstein_distance(experts, experts, p, q)

    total = n * (n - 1) // 2 * n_layers
    details = {"dtype": "float64", "threads": 1, "part": f"{n_rows} of {total:,} calls"}
    return Contender("scipy.stats.wasserstein_distance, looped", loop, runs, total / n_rows, details=details)


def numpy_picks(F: Array, n_select: int) -> Array:
    """Farthest point sampling from sample 0, in plain numpy."""
    picks = np.zeros(n_select, dtype=np.int64)
    distances = np.abs(F - F[0]).sum(axis=1)
    for m in range(1, n_select):
        picks[m] = distances.argmax()
        np.minimum(distances, np.abs(F - F[picks[m]]).sum(axis=1), out=distances)
    return picks


def l2_pickers() -> Iterator[tuple[str, str, int | None, Callable[[Array, int], Array]]]:
    """Farthest point sampling with the Euclidean distance: another question, so for scale only."""
    if installed("skmatter"):
        from skmatter.sample_selection import FPS

        def skmatter(F: Array, n_select: int) -> Array:
            return FPS(n_to_select=n_select, initialize=0).fit(F).selected_idx_

        yield "scikit-matter FPS", "float64", None, skmatter
    if installed("fpsample"):
        import fpsample

        yield "fpsample fps_sampling", "float32", 1, lambda F, n_select: fpsample.fps_sampling(F, n_select, start_idx=0)

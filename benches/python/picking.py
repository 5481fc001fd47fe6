"""Selection: `moefps.select` with its bounds and without, beside other ways to the same picks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import moefps

from .data import Data, cdf_features, planted, windows
from .peers import WARM_UP_ROWS, l2_pickers, numpy_picks
from .timing import Contender, race, say

Array = npt.NDArray[Any]

# Layers and experts of the planted data, and how many samples.
OTHER_SHAPES = ((32, 8, 8000), (48, 128, 3000), (61, 256, 2000))


def run(n_threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Time all ways on all data, on `n_threads` threads."""
    n_select = 20 if quick else 400
    runs = 2 if quick else 5
    real = windows(small=quick)
    cases = [_case(real, "index", n_select, runs, n_threads, _everything)]
    cases += [_case(real, ground, n_select, runs, n_threads, _pruned_or_not) for ground in ("values", "discrete")]
    for n_layers, n_experts, n in OTHER_SHAPES:
        data = planted(n // 40 if quick else n, n_layers, n_experts)
        cases.append(_case(data, "index", n_select, min(runs, 3), n_threads, _pruned_or_not))
    return cases


Ways = Callable[[Data, str, int, int, int], Iterator[Contender]]


def _case(data: Data, ground: str, n_select: int, runs: int, n_threads: int, ways: Ways) -> dict[str, Any]:
    say(f"select, {data.name}, {ground}, {n_threads} threads")
    results = race(list(ways(data, ground, n_select, runs, n_threads)))
    features = data.array[0].size - (len(data.array[0]) if ground == "index" else 0)
    _compare(results)
    return {
        "data": data.name,
        "shape": data.array.shape,
        "ground": ground,
        "n_select": n_select,
        "elements": n_select * len(data.array) * features,
        "contenders": results,
    }


def _compare(results: list[dict[str, Any]]) -> None:
    """Say of every exact answer whether its picks are those of the first with the same start."""
    first: dict[str, list[int]] = {}
    for result in results:
        indices = result.pop("indices")
        if result["start"] is not None:
            result["same"] = indices == first.setdefault(result["start"], indices)


def _pruned_or_not(data: Data, ground: str, n_select: int, runs: int, n_threads: int) -> Iterator[Contender]:
    for start in (0, "medoid"):
        for prune in (True, False):
            yield _ours(data.array, ground, n_select, runs, n_threads, start, "float32", prune=prune)


def _everything(data: Data, ground: str, n_select: int, runs: int, n_threads: int) -> Iterator[Contender]:
    X = data.array
    yield from _pruned_or_not(data, ground, n_select, runs, n_threads)
    for prune in (True, False):
        yield _ours(X, ground, n_select, runs, n_threads, 0, "float64", prune=prune)

    def by_matrix(rows: int = len(X)) -> list[int]:
        D = moefps.wasserstein_matrix(X[:rows], ground=ground, n_threads=n_threads)
        return moefps.fps(D, min(n_select, rows), start=0, n_threads=n_threads).indices.tolist()

    details = {"dtype": "float32", "threads": n_threads, "start": "0"}
    yield Contender(
        "moefps.wasserstein_matrix, then moefps.fps",
        by_matrix,
        runs,
        1.0,
        lambda: by_matrix(WARM_UP_ROWS),
        _indices,
        details,
    )
    features = {dtype: cdf_features(X, dtype) for dtype in ("float32", "float64")}
    F = features["float64"]
    # The plain loop is slow.
    details = {"dtype": "float64", "threads": 1, "start": "0"}
    yield Contender(
        "numpy loop", lambda: numpy_picks(F, n_select), 1, 1.0, lambda: numpy_picks(F, 2), _indices, details
    )
    for name, dtype, most_threads, pick in l2_pickers():
        yield Contender(
            f"{name} (Euclidean)",
            lambda pick=pick, dtype=dtype: pick(features[dtype], n_select),
            min(runs, 3),
            1.0,
            lambda pick=pick, dtype=dtype: pick(features[dtype], 2),
            _indices,
            {"dtype": dtype, "threads": most_threads or n_threads, "start": None},
        )


def _ours(
    X: Array, ground: str, n_select: int, runs: int, n_threads: int, start: int | str, dtype: str, *, prune: bool
) -> Contender:
    def call(n_select: int = n_select) -> list[int]:
        found = moefps.select(X, n_select, ground=ground, start=start, dtype=dtype, prune=prune, n_threads=n_threads)
        return found.indices.tolist()

    details = {"dtype": dtype, "threads": n_threads, "start": str(start), "prune": prune}
    return Contender(f"moefps.select(prune={prune})", call, runs, 1.0, lambda: call(2), _indices, details)


def _indices(answer: Any) -> dict[str, Any]:
    return {"indices": np.asarray(answer).tolist()}


def main(n_threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """As `run`, without warnings of duplicates in the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(n_threads, quick=quick)

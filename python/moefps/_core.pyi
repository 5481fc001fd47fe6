from collections.abc import Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from moefps._typing import ProgressCallback
from moefps.kernels._arguments import Distance
from moefps.kernels.agreement import Comparison
from moefps.kernels.counting import Trace
from moefps.kernels.logits import LogitTrace

_Floats: TypeAlias = npt.NDArray[np.floating[Any]]
_Picks: TypeAlias = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]
]

__version__: str

def simd_levels() -> list[str]: ...
def wasserstein_matrix(
    x: _Floats,
    distance: Distance,
    out: _Floats | PathLike[str],
    *,
    condensed: bool,
    n_threads: int | None,
    progress: ProgressCallback | None,
) -> None: ...
def wasserstein_cross(
    x: _Floats,
    y: _Floats,
    distance: Distance,
    out: _Floats | PathLike[str],
    *,
    n_threads: int | None,
    progress: ProgressCallback | None,
) -> None: ...
def mean_distances(
    x: _Floats, distance: Distance, *, n_threads: int | None, progress: ProgressCallback | None
) -> npt.NDArray[np.float64]: ...
def compare_choices(
    comparison: Comparison, *, n_threads: int | None, progress: ProgressCallback | None
) -> dict[str, npt.NDArray[Any]]: ...
def count_routing(
    trace: Trace, *, n_threads: int | None, progress: ProgressCallback | None
) -> dict[str, npt.NDArray[Any]]: ...
def sum_logits(
    trace: LogitTrace, *, n_threads: int | None, progress: ProgressCallback | None
) -> dict[str, npt.NDArray[Any]]: ...
def fps(
    d: _Floats,
    n_select: int,
    *,
    start: str | list[int],
    stop_radius: float | None,
    n_threads: int | None,
    progress: ProgressCallback | None,
) -> _Picks: ...
def select(
    x: _Floats,
    n_select: int,
    distance: Distance,
    *,
    start: str | list[int],
    stop_radius: float | None,
    prune: bool,
    n_threads: int | None,
    progress: ProgressCallback | None,
) -> _Picks: ...
def cover(
    x: _Floats,
    sets: Sequence[Sequence[int]],
    distance: Distance,
    *,
    n_threads: int | None,
    progress: ProgressCallback | None,
) -> list[tuple[float, float]]: ...

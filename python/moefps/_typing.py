"""Types that several packages share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Float64Array: TypeAlias = npt.NDArray[np.float64]
IndexArray: TypeAlias = npt.NDArray[np.int64]

GroundName: TypeAlias = Literal["index", "values", "discrete"]
Ground: TypeAlias = GroundName | npt.ArrayLike
Reduce: TypeAlias = Literal["sum", "mean"]
Precision: TypeAlias = Literal["float32", "float64"]
Start: TypeAlias = Literal["medoid", "farthest", "random"] | int | Sequence[int] | IndexArray
PathLike: TypeAlias = str | os.PathLike[str]
ProgressCallback: TypeAlias = Callable[[int, int], None]
Progress: TypeAlias = bool | ProgressCallback

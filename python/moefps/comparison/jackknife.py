"""What each task alone does to an estimate: the jackknife in closed form, and Student's t for few tasks."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array

__all__ = ["ratio_influences", "standard_error", "student_t"]

_NEARLY_NORMAL = 2000
"""Degrees of freedom from which Student's t is that of so many."""


def ratio_influences(sums: npt.ArrayLike, counts: npt.ArrayLike) -> Float64Array:
    """Give what each task does to Σ sums / Σ counts, scaled so that the squares sum to the variance of the ratio.

    Without a task, the ratio is lower by exactly ``(sums - ratio · counts) / (Σ counts - counts)``. Of n tasks that
    have a count, the jackknife takes ``(n - 1) / n`` of the sum of squares of those.

    Parameters
    ----------
    sums, counts : array-like [N, ...]
        What each task adds to the numerator and the denominator; `counts` is broadcast.

    Returns
    -------
    ndarray [N, ...]
        NaN where fewer than two tasks have a count: nothing can be told from one.

    References
    ----------
    Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 3.

    Examples
    --------
    >>> ratio_influences([1.0, 3.0], [1, 1]).round(6).tolist()
    [-0.707107, 0.707107]
    """
    top, bottom = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    total = bottom.sum(axis=0)
    n_tasks = (bottom > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        off: Float64Array = (top - top.sum(axis=0) / total * bottom) / (total - bottom)
        return np.where(n_tasks > 1, off * np.sqrt((n_tasks - 1) / n_tasks), np.nan)


def standard_error(influences: Float64Array) -> Float64Array:
    """Give the standard error of an estimate from what each task does to it, [N, ...]."""
    found: Float64Array = np.sqrt((influences**2).sum(axis=0))
    return found


@lru_cache(maxsize=4096)
def student_t(n_tasks: int) -> float:
    """Give the quantile of Student's t for intervals of 95 %, with one degree of freedom less than there are tasks.

    Parameters
    ----------
    n_tasks : int
        At least 2.

    References
    ----------
    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4: the share within ±t as a finite sum.

    Examples
    --------
    >>> [round(student_t(n), 3) for n in (2, 5, 20, 164)]
    [12.706, 2.776, 2.093, 1.975]
    """
    freedom = min(n_tasks - 1, _NEARLY_NORMAL)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _share_within(angle, freedom) < 0.95 else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _share_within(angle: float, freedom: int) -> float:
    """Give the share of Student's t within ±√freedom · tan(angle)."""
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = total = 0.0 if freedom == 1 else math.sin(angle) * (math.cos(angle) if odd else 1.0)
    for step in range(2 + odd, freedom - 1, 2):
        term *= square * (step - 1) / step
        total += term
    return 2 / math.pi * (angle + total) if odd else total

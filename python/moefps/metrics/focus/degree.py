"""From what each domain has of an expert's activation to its focus degree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray

__all__ = ["BANDS", "BAND_EDGES", "Degrees", "compute_degrees"]

BANDS = ("scattered", "light", "medium", "high", "extreme")
"""The bands of the focus degree, each 20 points wide. A band owns its lower edge; 100 is in the last."""
BAND_EDGES = (0, 20, 40, 60, 80, 100)


@dataclass(frozen=True, eq=False)
class Degrees:
    """Focus degrees of experts; NaN and -1 where one is not defined.

    Attributes
    ----------
    percent : ndarray of float64 [..., D]
        P[i, d] = 100 · total[i, d] / Σ_d total[i, d]; NaN for experts without any total.
    degree : ndarray of float64 [...]
        The largest of them, the focus degree.
    domain : ndarray of int64 [...]
        Where it is; of equals, the first.
    second_percent : ndarray of float64 [...]
        The largest of the others; NaN where there is one domain.
    second_domain : ndarray of int64 [...]
        Where that is.
    entropy : ndarray of float64 [...]
        1 - H(P / 100) / ln D: 1 for all in one domain, 0 for the same in each; NaN for one domain.
    band : ndarray of int64 [...]
        Which of `BANDS` the degree is in.
    """

    percent: Float64Array
    degree: Float64Array
    domain: IndexArray
    second_percent: Float64Array
    second_domain: IndexArray
    entropy: Float64Array
    band: IndexArray


def compute_degrees(totals: Float64Array, present: npt.NDArray[np.bool_] | None = None) -> Degrees:
    """Compute focus degrees.

    Parameters
    ----------
    totals : ndarray of float64 [..., D]
        The counted activation of each expert in each domain, not negative.
    present : ndarray of bool [..., D], optional
        Which domains there are, where some have no tokens; broadcast to `totals`.

    Returns
    -------
    Degrees

    Examples
    --------
    >>> found = compute_degrees(np.array([45.2, 12.8, 18.6]))
    >>> found.percent.round(1).tolist(), float(found.degree.round(1)), BANDS[int(found.band)]
    ([59.0, 16.7, 24.3], 59.0, 'medium')
    """
    there = np.broadcast_to(True if present is None else present, totals.shape)
    amounts = np.where(there, totals, 0.0)
    whole = amounts.sum(axis=-1, keepdims=True)
    is_defined = whole[..., 0] > 0
    n_domains = there.sum(axis=-1)
    shares = np.divide(amounts, whole, out=np.full(totals.shape, np.nan), where=whole > 0)
    percent = 100.0 * shares
    # What is not there comes last, behind domains that got nothing.
    ranked = np.where(there, np.where(is_defined[..., np.newaxis], percent, 0.0), -1.0)
    first, degree = _largest(ranked)
    np.put_along_axis(ranked, first[..., np.newaxis], -2.0, axis=-1)
    second, second_percent = _largest(ranked)
    has_second = is_defined & (n_domains > 1)
    logarithms = np.log(shares, out=np.zeros(totals.shape), where=shares > 0)
    entropy = -(np.where(shares > 0, shares, 0.0) * logarithms).sum(axis=-1)
    most = np.log(np.maximum(n_domains, 2))
    # Rounding may leave a hair below 0 where all domains have the same.
    evenness = np.clip(1.0 - entropy / most, 0.0, 1.0)
    degree = np.where(is_defined, degree, np.nan)
    band = np.minimum(np.where(is_defined, degree, 0.0) // 20.0, len(BANDS) - 1).astype(np.int64)
    return Degrees(
        percent=percent,
        degree=degree,
        domain=np.where(is_defined, first, -1),
        second_percent=np.where(has_second, second_percent, np.nan),
        second_domain=np.where(has_second, second, -1),
        entropy=np.where(has_second, evenness, np.nan),
        band=np.where(is_defined, band, -1),
    )


def _largest(values: Float64Array) -> tuple[IndexArray, Float64Array]:
    """Give where the first of the largest values is, and what it is, along the last axis."""
    at = values.argmax(axis=-1)
    return at, np.take_along_axis(values, at[..., np.newaxis], axis=-1)[..., 0]

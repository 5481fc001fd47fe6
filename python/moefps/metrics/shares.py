"""What fingerprints allow: the mean share of each expert, from which all metrics follow that know no scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import DataError
from moefps.kernels import check_fingerprints
from moefps.metrics.grouping import MOST_COUNTERS, MOST_UNITS
from moefps.metrics.sums import Sums

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray

__all__ = ["MISSING", "shares_of_fingerprints"]

_CHUNK = 1 << 22
_TOLERANCE = {"float16": 2e-3, "float32": 1e-4, "float64": 1e-6}
"""How far from 1 a row may sum; distances accept the same."""

_NEEDS_TRACE = "needs a trace: fingerprints hold shares alone"
MISSING = dict.fromkeys(("trace", "logits", "neighbours", "pairs", "domains", "windows", "token_ids"), _NEEDS_TRACE)
"""What fingerprints are without."""


def shares_of_fingerprints(
    X: npt.ArrayLike, layers: IndexArray | None = None, *, units: bool = False
) -> tuple[Sums, int]:
    """Add up the rows of samples.

    Parameters
    ----------
    X : array of float [N, L, E]
        Fingerprints, memory-mapped or not.
    layers : ndarray of int64, optional
        Which layers; all when not given.
    units : bool
        Whether to keep samples, or blocks of consecutive ones, apart.

    Returns
    -------
    Sums
        A cell a unit. The shares stand for both the assignments and the weights, as it is not known which they are of.
    int
        Samples in a unit.

    Raises
    ------
    ShapeError, DtypeError
        It is no array of floats [N, L, E].
    DataError
        A row has a number that is negative or not finite, or does not sum to 1.
    """
    array = check_fingerprints("X", X)
    chosen = np.arange(array.shape[1]) if layers is None else layers
    n_samples, width = array.shape[0], len(chosen) * array.shape[2]
    per_unit = n_samples
    if units:
        most = max(1, min(MOST_UNITS, MOST_COUNTERS // max(1, width)))
        per_unit = -(-n_samples // most)
    n_units = -(-n_samples // per_unit)
    total = np.zeros((n_units, len(chosen), array.shape[2]))
    step = max(1, _CHUNK // max(1, array.shape[1] * array.shape[2]))
    for first in range(0, n_samples, step):
        rows = _checked(array[first : first + step], first)[:, chosen]
        # Added one unit after the other, so that no order depends on the size of a chunk.
        place = (first + np.arange(len(rows))) // per_unit
        np.add.at(total, place, rows)
    sums = Sums(
        chosen,
        np.full(len(chosen), array.shape[2]),
        None,
        {},
        {"activations": total, "share_sum": total},
    )
    return sums, per_unit


def _checked(rows: npt.NDArray[Any], first: int) -> Float64Array:
    """Give rows divided by their sums, if they are what they must be."""
    tolerance = _TOLERANCE[rows.dtype.name]
    values = rows.astype(np.float64)
    bad = ~((values >= 0) & (values < np.inf))
    if bad.any():
        sample, layer, expert = (int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
        raise DataError(
            f"X: sample {first + sample}, layer {layer}, expert {expert} is {values[sample, layer, expert]}; "
            f"accepted: finite numbers >= 0"
        )
    sums = values.sum(axis=2)
    off = ~(np.abs(sums - 1) <= tolerance)
    if off.any():
        sample, layer = (int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
        raise DataError(
            f"X: sample {first + sample}, layer {layer} sums to {sums[sample, layer]:.9g}; "
            f"accepted: 1 within {tolerance:g} for {rows.dtype.name}"
        )
    values /= sums[:, :, np.newaxis]
    return values

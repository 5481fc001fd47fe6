"""How much the experts' sets of tokens overlap, from how many tokens chose each pair of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray

__all__ = ["overlap_columns"]

COLUMNS = ("overlap_pairs", "overlap_mean", "overlap_std", "overlap_max")


def overlap_columns(coactivation: npt.NDArray[Any] | None, n_experts: IndexArray, n_cells: int) -> dict[str, pl.Series]:
    """Give the Jaccard indices of pairs of used experts, in four numbers for each cell and layer.

    Parameters
    ----------
    coactivation : ndarray [C, L, E, E] or None
        Tokens that chose both experts, on the diagonal those that chose the one.
    n_experts : ndarray of int64 [L]
        Experts of each layer.
    n_cells : int
        C.

    Returns
    -------
    dict of Series [C * L]
        ``overlap_pairs`` (pairs of used experts), ``overlap_mean``, ``overlap_std`` (ddof=1), ``overlap_max``; null
        where there are no such pairs (or one, for the std), or where they were not counted.

    Examples
    --------
    >>> import numpy as np
    >>> both = np.array([[[[4, 2, 0], [2, 3, 0], [0, 0, 0]]]])
    >>> overlap_columns(both, np.array([3]), 1)["overlap_mean"].to_list()
    [0.4]
    """
    if coactivation is None:
        return {name: pl.Series(name, [None] * (n_cells * len(n_experts)), dtype=pl.Float64) for name in COLUMNS}
    found = np.full((len(COLUMNS), n_cells, len(n_experts)), np.nan)
    for layer, size in enumerate(n_experts.tolist()):
        i, j = np.triu_indices(size, 1)
        both = coactivation[:, layer]
        alone = np.diagonal(both, axis1=1, axis2=2)
        first, second, common = alone[:, i], alone[:, j], both[:, i, j]
        used = (first > 0) & (second > 0)
        either = np.where(used, first + second - common, 1)
        index = np.where(used, common / either, 0.0)
        n_pairs = used.sum(axis=1)
        found[0, :, layer] = n_pairs
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = index.sum(axis=1) / n_pairs
            apart = np.where(used, index - mean[:, np.newaxis], 0.0)
            found[1, :, layer] = mean
            # Of one pair, 0 / 0: not defined.
            found[2, :, layer] = np.sqrt((apart * apart).sum(axis=1) / (n_pairs - 1))
        found[3, :, layer] = np.where(n_pairs > 0, index.max(axis=1, initial=0.0), np.nan)
    return {
        name: pl.Series(name, values.reshape(-1)).fill_nan(None) for name, values in zip(COLUMNS, found, strict=True)
    }

"""How the difference of routing goes on with the distance to the tool's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from moefps.comparison.grouping import CANONICAL, PAIR_GROUPS
from moefps.comparison.measures import mean_with_interval
from moefps.comparison.reduction import compare_cells, has_shares
from moefps.comparison.resampling import percentile_interval, resampled_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray
    from moefps.comparison.matching import Match
    from moefps.comparison.reduction import Units

__all__ = ["BINS", "DistanceSums", "distance_sums", "distance_table", "distance_trend"]

BINS = ((1, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256), (257, 512), (513, None))
"""Distances, both ends inside; None for no end."""
_MEASURES = ("tv", "jaccard")


class DistanceSums(NamedTuple):
    """Sums over token-layer pairs, by unit and bin, [N, D].

    Attributes
    ----------
    tokens : ndarray of int64 [D]
        Tokens that are compared in at least one layer.
    counts : ndarray of float64 [N, D]
        Token-layer pairs that are compared.
    sums : mapping of str to ndarray of float64 [N, D]
        Of ``tv`` and ``jaccard``; without ``tv`` where there are no weights.
    """

    tokens: IndexArray
    counts: Float64Array
    sums: Mapping[str, Float64Array]


def distance_sums(match: Match, units: Units, compared: npt.NDArray[np.bool_], **options: Any) -> DistanceSums:
    """Sum up the tokens of the solution by distance, in a pass over those alone.

    Parameters
    ----------
    match : Match
        The pairs of tokens.
    units : Units
        What is resampled.
    compared : ndarray of bool [P]
        Which pairs are compared in at least one layer.
    **options
        Threads and progress.
    """
    n_bins, shape = len(BINS), (units.n_units, len(BINS))
    chosen = np.flatnonzero(_of_canonical(match) & (match.distance > 0))
    if not len(chosen):
        nothing = np.zeros(shape)
        return DistanceSums(np.zeros(n_bins, dtype=np.int64), nothing, dict.fromkeys(_MEASURES, nothing))
    starts = np.array([first for first, _ in BINS])
    which = np.searchsorted(starts, match.distance[chosen], side="right") - 1
    cells = units.of(match.task[chosen]) * n_bins + which
    sums = compare_cells(match, chosen, cells, units.n_units * n_bins, usage=False, **options)
    count = sums.pairs_with_shares if has_shares(match) else sums.pairs
    assert count is not None  # noqa: S101 (for the type checker)
    of = {"tv": sums.tv_sums, "jaccard": sums.jaccard_sums}
    return DistanceSums(
        np.bincount(which[compared[chosen]], minlength=n_bins),
        _over_layers(count, shape),
        {name: _over_layers(array, shape) for name, array in of.items() if array is not None},
    )


def distance_table(found: DistanceSums, taken: Float64Array | None) -> pl.DataFrame:
    """Make the table: a row a bin, empty ones too."""
    columns: dict[str, Any] = {
        "distance_min": [first for first, _ in BINS],
        "distance_max": pl.Series([last for _, last in BINS], dtype=pl.Int64),
        "count": found.tokens,
    }
    for name in _MEASURES:
        if name not in found.sums:
            nothing = pl.Series([None] * len(BINS), dtype=pl.Float64)
            columns |= {name: nothing, f"{name}_lo": nothing, f"{name}_hi": nothing}
            continue
        mean, lo, hi = mean_with_interval(found.sums[name], found.counts, taken)
        columns |= {name: mean, f"{name}_lo": lo, f"{name}_hi": hi}
    return pl.DataFrame(columns, nan_to_null=True)


def distance_trend(found: DistanceSums, taken: Float64Array | None) -> dict[str, Any] | None:
    """Compare the nearest with the farthest bin that has tokens of two tasks; None where there are not two such bins.

    Where one task alone has tokens, its own words would pass for the distance.

    Returns
    -------
    dict or None
        ``from`` and ``to``: the bins; ``tv_change`` and ``jaccard_change``: farthest less nearest, each with the ends
        of its interval, null where there is none.
    """
    filled = np.flatnonzero((found.counts > 0).sum(axis=0) > 1)
    if len(filled) < 2:
        return None
    ends = filled[[0, -1]]
    total = found.counts.sum(axis=0)
    trend: dict[str, Any] = {}
    for word, place in zip(("from", "to"), ends.tolist(), strict=True):
        first, last = BINS[place]
        means = {name: float(of[:, place].sum() / total[place]) for name, of in found.sums.items()}
        trend[word] = {"distance_min": first, "distance_max": last, "count": int(found.tokens[place]), **means}
    for name, of in found.sums.items():
        lo = hi = None
        if taken is not None:
            resampled = resampled_ratios(taken, of[:, ends], found.counts[:, ends])
            low, high = percentile_interval(resampled[:, 1] - resampled[:, 0])
            lo, hi = (None if np.isnan(end) else float(end) for end in (low, high))
        trend[f"{name}_change"] = trend["to"][name] - trend["from"][name]
        trend |= {f"{name}_change_lo": lo, f"{name}_change_hi": hi}
    return trend


def _of_canonical(match: Match) -> npt.NDArray[np.bool_]:
    """Say which pairs are of the solution; none where the groups are those of a column."""
    if match.grouping is not PAIR_GROUPS:
        return np.zeros(match.n_pairs, dtype=np.bool_)
    found: npt.NDArray[np.bool_] = PAIR_GROUPS.members[PAIR_GROUPS.names.index(CANONICAL)][match.kind]
    return found


def _over_layers(by_layer: npt.NDArray[Any], shape: tuple[int, int]) -> Float64Array:
    found: Float64Array = by_layer.sum(axis=1).astype(np.float64).reshape(shape)
    return found

"""How the difference of routing goes on with the distance to the tool's answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from moefps.comparison.grouping import CANONICAL, PAIR_GROUPS
from moefps.comparison.reduction import BYTES_OF_LAYER, MOST_BYTES, compare_cells, has_shares
from moefps.comparison.resampling import mean_with_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray
    from moefps.comparison.matching import Match
    from moefps.comparison.reduction import Units

__all__ = ["BINS", "DistanceSums", "distance_sums", "distance_table", "distance_trend"]

BINS = ((1, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256), (257, 512), (513, None))
"""Distances, both ends inside; None for no end."""
_STARTS = [first for first, _ in BINS]
_MEASURES = ("tv", "jaccard")


class DistanceSums(NamedTuple):
    """Sums over token-layer pairs, by task and bin, [T, D].

    Attributes
    ----------
    units : Units
        What is resampled.
    tokens : ndarray of int64 [D]
        Tokens that are compared in at least one layer.
    counts : ndarray of float64 [T, D]
        Token-layer pairs that are compared.
    places : ndarray of float64 [T, D]
        Where in its bin a task has its tokens: the mean of the binary logarithm of their distances; 0 without one.
    sums : mapping of str to ndarray of float64 [T, D]
        Of ``tv`` and ``jaccard``; without ``tv`` where there are no weights.
    """

    units: Units
    tokens: IndexArray
    counts: Float64Array
    places: Float64Array
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
    n_bins, n_tasks = len(BINS), len(match.tasks)
    names = _MEASURES if has_shares(match) else _MEASURES[1:]
    tokens, counts, places, *sums = np.zeros((3 + len(names), n_tasks, n_bins))
    far = np.flatnonzero(_of_canonical(match) & (match.distance > 0))
    # Tasks whose sums fit into memory at a time.
    size = max(1, MOST_BYTES // (n_bins * match.a.dump.n_layers * BYTES_OF_LAYER))
    for first in range(0, n_tasks, size):
        tasks = slice(first, min(first + size, n_tasks))
        shape = tasks.stop - first, n_bins
        chosen = far[slice(*np.searchsorted(match.task[far], (first, tasks.stop)))]
        if not len(chosen):
            continue
        which = np.searchsorted(_STARTS, match.distance[chosen], side="right") - 1
        cells = (match.task[chosen] - first) * n_bins + which
        found = compare_cells(match, chosen, cells, math.prod(shape), usage=False, **options)
        counts[tasks] = _over_layers(found.pairs if found.pairs_with_shares is None else found.pairs_with_shares, shape)
        for name, of in zip(names, sums, strict=True):
            of[tasks] = _over_layers(getattr(found, f"{name}_sums"), shape)
        routed = compared[chosen]
        tokens[tasks] = np.bincount(cells[routed], minlength=math.prod(shape)).reshape(shape)
        logarithms = np.log2(match.distance[chosen[routed]])
        summed = np.bincount(cells[routed], weights=logarithms, minlength=math.prod(shape)).reshape(shape)
        places[tasks] = summed / np.maximum(tokens[tasks], 1)
    n_tokens = tokens.sum(axis=0).astype(np.int64)
    return DistanceSums(units, n_tokens, counts, places, dict(zip(names, sums, strict=True)))


def distance_table(found: DistanceSums, taken: Float64Array | None) -> pl.DataFrame:
    """Make the table: a row a bin, empty ones too."""
    columns: dict[str, Any] = {
        "distance_min": _STARTS,
        "distance_max": pl.Series([last for _, last in BINS], dtype=pl.Int64),
        "count": found.tokens,
    }
    for name in _MEASURES:
        if name not in found.sums:
            nothing = pl.Series([None] * len(BINS), dtype=pl.Float64)
            columns |= {name: nothing, f"{name}_lo": nothing, f"{name}_hi": nothing}
            continue
        sums, counts = found.units.add_up(found.sums[name]), found.units.add_up(found.counts)
        mean, lo, hi = mean_with_interval(sums, counts, taken, least=0, most=1)
        columns |= {name: mean, f"{name}_lo": lo, f"{name}_hi": hi}
    return pl.DataFrame(columns, nan_to_null=True)


def distance_trend(found: DistanceSums, taken: Float64Array | None) -> dict[str, Any] | None:
    """Say how the difference goes on with distance, within tasks; None where there are not two bins to compare.

    The slope is that of a line through the bins of a task, weighted by their tokens, on the binary logarithm of the
    distance: what a doubling of the distance adds. Each task has a level of its own, so that long solutions, which
    alone reach far, do not pass for distance. Over tasks it is the ratio of the sums that a slope is of.

    Returns
    -------
    dict or None
        ``from`` and ``to``: the nearest and the farthest bin in which two tasks or more have tokens, with their means;
        ``tv_slope`` and ``jaccard_slope``, each with the ends of its interval; null where there is none.
    """
    filled = np.flatnonzero((found.counts > 0).sum(axis=0) > 1)
    if len(filled) < 2:
        return None
    total = found.counts.sum(axis=0)
    trend: dict[str, Any] = {}
    for word, place in zip(("from", "to"), filled[[0, -1]].tolist(), strict=True):
        first, last = BINS[place]
        means = {name: float(of[:, place].sum() / total[place]) for name, of in found.sums.items()}
        trend[word] = {"distance_min": first, "distance_max": last, "count": int(found.tokens[place]), **means}
    of_task = found.counts.sum(axis=1, keepdims=True)
    centre = (found.counts * found.places).sum(axis=1, keepdims=True) / np.maximum(of_task, 1)
    off = found.places - centre
    spread = found.units.add_up((found.counts * off**2).sum(axis=1))
    for name, of in found.sums.items():
        # Off the level of the task too, so that what is the same everywhere has no slope, not even a rounding's.
        level = of.sum(axis=1, keepdims=True) / np.maximum(of_task, 1)
        rise = found.units.add_up(((of - level * found.counts) * off).sum(axis=1))
        ends = mean_with_interval(rise, spread, taken)
        words = (f"{name}_slope", f"{name}_slope_lo", f"{name}_slope_hi")
        trend |= {word: None if np.isnan(end) else float(end) for word, end in zip(words, ends, strict=True)}
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

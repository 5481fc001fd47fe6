"""From two dumps to all that the tables are made of: both traces read, summed and measured."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps._progress import progress_callback
from moefps.comparison.distances import distance_sums
from moefps.comparison.grouping import ALL, CANONICAL, TOOL
from moefps.comparison.joint import GroupUsage, LayerUsage, Resamples, measure_layer
from moefps.comparison.measures import token_sums
from moefps.comparison.reduction import (
    find_compared,
    layer_chunks,
    make_units,
    present_classes,
    reduce_pairs,
    reduce_sides,
)
from moefps.comparison.resampling import resample_tasks
from moefps.comparison.usage import exchanged_halves
from moefps.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from moefps._typing import Float64Array, Progress
    from moefps.comparison.distances import DistanceSums
    from moefps.comparison.grouping import Grouping
    from moefps.comparison.matching import Match
    from moefps.comparison.measures import TokenSums
    from moefps.comparison.reduction import Units
    from moefps.kernels import RoutingCounts

__all__ = ["Measured", "measure"]

HALVES = 200
"""Random halves of the tasks that the mean TV of usage by chance is taken over, at most."""


@dataclass(frozen=True, eq=False)
class Measured:
    """All that was read of two dumps.

    Attributes
    ----------
    match : Match
        Which tokens are compared.
    units : Units
        What is resampled.
    wanted : tuple of str
        The groups that the tables of layers have.
    n_resamples, seed : int
        Of the bootstrap and the test.
    draws : Resamples or None
        The random draws; None where there are no intervals.
    tokens : TokenSums
        Sums of measures of tokens.
    usage : list of LayerUsage [L]
        Usage of experts.
    sides : list of RoutingCounts or None
        What each dump has by class; None where that is what is compared.
    compared : ndarray of bool [P]
        Which pairs are compared in at least one layer.
    distances : DistanceSums
        Sums by distance.
    """

    match: Match
    units: Units
    wanted: tuple[str, ...]
    n_resamples: int
    seed: int
    draws: Resamples | None
    tokens: TokenSums
    usage: list[LayerUsage]
    sides: list[RoutingCounts | None]
    compared: npt.NDArray[np.bool_]
    distances: DistanceSums

    @property
    def taken(self) -> Float64Array | None:
        """How often each unit is in each resample."""
        return None if self.draws is None else self.draws.taken

    @property
    def n_experts(self) -> list[int]:
        """Experts of each layer, without passive ones, [L]."""
        return [info.n_experts - info.passive_experts for info in self.match.a.dump.layers]


def measure(match: Match, wanted: tuple[str, ...], n_resamples: int, seed: int, **options: Any) -> Measured:
    """Read both traces and reduce them to what the tables are made of."""
    units = make_units(match, n_resamples)
    draws = None
    if n_resamples and units.n_units > 1:
        halves = exchanged_halves(units.n_units, min(n_resamples, HALVES), seed=seed)
        draws = Resamples(resample_tasks(units.n_units, n_resamples, seed=seed), halves)
    grouping = match.grouping.only(present_classes(match))
    usage: list[LayerUsage] = []
    parts = []
    for layers in layer_chunks(match, units):
        sums = reduce_pairs(match, units, layers, **options)
        usage += _measure_layers(sums, grouping, wanted, draws, **options)
        # What is left is small: the usage of experts is not.
        parts.append({name: of for name, of in sums.items() if of is not None and of.ndim < 4} | _missing(sums))
    top_k = np.array([info.top_k for info in match.a.dump.layers])
    found = token_sums(parts, grouping, top_k)
    counts = np.concatenate([part["count"] for part in parts], axis=2)
    compared = find_compared(match, counts)
    if not compared.any():
        raise DataError(
            f"{match.b.name}: no token that it has in common with {match.a.name} is routed in both; "
            "accepted: dumps with filled slots and weights above 0"
        )
    return Measured(
        match=match,
        units=units,
        wanted=wanted,
        n_resamples=n_resamples,
        seed=seed,
        draws=draws,
        tokens=found,
        usage=usage,
        sides=reduce_sides(match, {"count": counts}, **options),
        compared=compared,
        distances=distance_sums(match, units, compared, **options),
    )


def _missing(sums: Mapping[str, Any]) -> dict[str, None]:
    return dict.fromkeys(name for name, of in sums.items() if of is None)


def _measure_layers(
    sums: Mapping[str, Any],
    grouping: Grouping,
    wanted: Sequence[str],
    draws: Resamples | None,
    *,
    n_threads: int | None,
    progress: Progress,
) -> list[LayerUsage]:
    """Measure the usage in each layer of a pass, some layers beside each other."""

    def measure(place: int) -> LayerUsage:
        groups = {}
        width = int(sums["n_experts"][place])
        by_class = {
            name: None if sums[name] is None else sums[name][:, :, place, :width].astype(np.float64)
            for name in ("activations_a", "activations_b", "share_sums_a", "share_sums_b")
        }
        for name, members in zip(grouping.names, grouping.members, strict=True):
            tokens = sums["count"][:, members, place].sum(axis=1)
            if not tokens.any() or not (name in wanted or name in {ALL, TOOL, CANONICAL}):
                continue
            of: dict[str, Any] = {
                key: None if array is None else array[:, members].sum(axis=1) for key, array in by_class.items()
            }
            weights = None if of["share_sums_a"] is None else (of["share_sums_a"], of["share_sums_b"])
            counts = of["activations_a"], of["activations_b"]
            groups[name] = GroupUsage(counts, weights, int((tokens > 0).sum()))
        return measure_layer(groups, wanted, whole=ALL, leakage=(TOOL, CANONICAL), draws=draws)

    found: list[LayerUsage] = []
    n_layers = len(sums["n_experts"])
    pool = ThreadPoolExecutor(max(1, min(n_threads or os.cpu_count() or 1, 8)))
    try:
        with progress_callback(progress, "usage of experts") as advance:
            for done, layer in enumerate(pool.map(measure, range(n_layers)), start=1):
                found.append(layer)
                if advance is not None:
                    advance(done, n_layers)
    finally:
        # After Ctrl-C, layers that have not begun are not waited for, and those that have stop where they are.
        if draws is not None:
            draws.stop.set()
        pool.shutdown(cancel_futures=True)
        if draws is not None:
            draws.stop.clear()
    return found

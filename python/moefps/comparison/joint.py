"""How differently two conditions use the experts of one layer: group by group, with intervals over tasks."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.comparison.association import pearson
from moefps.comparison.correlating import Moments, find_moments
from moefps.comparison.jackknife import ratio_influences, standard_error
from moefps.comparison.resampling import percentile_interval, resampled_ratios
from moefps.comparison.usage import (
    divergence_interval,
    exchanged_distances,
    js_divergence,
    shares,
    total_variation,
    usage_entropy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from moefps._typing import Float64Array

__all__ = ["GroupUsage", "LayerUsage", "Resamples", "measure_layer", "usage_row"]

_ENTRIES = 1 << 20
"""Shares that are resampled at a time."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """The random draws, the same for all layers and groups.

    Attributes
    ----------
    taken : ndarray of float64 [R, N]
        How often each unit is in each resample.
    exchanged : ndarray of float64 [H, N]
        1 where the conditions of a unit are exchanged.
    stop : Event
        Set when nobody waits any more for what is made of them.
    """

    taken: Float64Array
    exchanged: Float64Array
    stop: Event = field(default_factory=Event)

    def go_on(self) -> None:
        """Raise CancelledError when nobody waits any more."""
        if self.stop.is_set():
            raise CancelledError


@dataclass(frozen=True, eq=False)
class GroupUsage:
    """What one group uses in one layer.

    Attributes
    ----------
    counts : tuple of ndarray of float64 [N, E]
        Assignments over the tokens that are compared, by unit: of `a` and of `b`.
    weights : tuple of ndarray of float64 [N, E] or None
        The same in shares of weights.
    n_units : int
        Units that have a token.
    """

    counts: tuple[Float64Array, Float64Array]
    weights: tuple[Float64Array, Float64Array] | None
    n_units: int


@dataclass(eq=False)
class LayerUsage:
    """What is found of one layer.

    Attributes
    ----------
    rows : list of dict
        A row a group of the joint table, without the counts of tokens.
    delta : ndarray of float64 [2, E] or None
        Differences of usage in the two groups of leakage; None where one has no token.
    r : float
        Pearson's correlation of the two; NaN where it is not defined.
    moments : Moments or None
        What its interval is made of; None where it has none.
    experts : dict of str to ndarray
        All experts, ascending, of the group `whole`: ``u_a``, ``u_b``, ``delta_u``, ``delta_u_lo``, ``delta_u_hi``;
        empty where it has no token.
    """

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    delta: Float64Array | None = None
    r: float = np.nan
    moments: Moments | None = None
    experts: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


def measure_layer(
    groups: Mapping[str, GroupUsage],
    wanted: Sequence[str],
    *,
    whole: str,
    leakage: tuple[str, str] | None,
    draws: Resamples | None,
) -> LayerUsage:
    """Measure one layer.

    Parameters
    ----------
    groups : mapping of str to GroupUsage
        Every group that has a token which is compared.
    wanted : sequence of str
        The groups to give a row, beside `whole`.
    whole : str
        The group whose experts are listed, all of them.
    leakage : tuple of str or None
        The two groups whose differences are correlated.
    draws : Resamples or None
        None for no intervals.
    """
    found = LayerUsage()
    for name in dict.fromkeys((*wanted, whole)):
        if name in groups:
            found.rows[name] = _joint(groups[name], draws)
    if whole in groups:
        found.experts = _experts(groups[whole], draws)
    if leakage is not None and all(name in groups for name in leakage):
        pair = [groups[name] for name in leakage]
        found.delta = np.stack([np.subtract(*_totals(group.counts)) for group in pair])
        found.r = float(pearson(found.delta[0], found.delta[1]))
        n_units = min(group.n_units for group in pair)
        if draws is not None and not np.isnan(found.r) and n_units > 1:
            found.moments = find_moments(found.delta, [_influences(group.counts) for group in pair], n_units)
    return found


def usage_row(u: Float64Array, v: Float64Array, suffix: str = "") -> dict[str, float]:
    """Describe the usage of two conditions, [E] each; what is NaN is not there."""
    row: dict[str, float] = {}
    for side, of in (("a", u), ("b", v)):
        largest = np.sort(of)[::-1]
        row[f"usage_entropy_{side}{suffix}"] = float(usage_entropy(of))
        row[f"top1_share_{side}{suffix}"] = float(largest[0])
        row[f"top5_share_{side}{suffix}"] = float(largest[:5].sum())
    row[f"usage_tv{suffix}"] = float(total_variation(u, v))
    row[f"usage_js{suffix}"] = float(js_divergence(u, v))
    return row


def _joint(group: GroupUsage, draws: Resamples | None) -> dict[str, float]:
    row: dict[str, float] = {}
    for suffix, sides in (("", group.counts), ("_weighted", group.weights)):
        if sides is None:
            continue
        row |= usage_row(*_totals(sides), suffix)
        if draws is None or group.n_units < 2:
            continue
        draws.go_on()
        by_chance = exchanged_distances(*sides, draws.exchanged)
        lo, hi = divergence_interval(*sides, draws.exchanged, by_chance[1])
        row |= {f"usage_js{suffix}_lo": lo, f"usage_js{suffix}_hi": hi}
        row[f"usage_tv_null{suffix}"] = float(by_chance[0].mean())
    return row


def _experts(group: GroupUsage, draws: Resamples | None) -> dict[str, npt.NDArray[Any]]:
    """Give the usage of every expert, and how it differs.

    An expert that one unit alone uses differently has no interval, and one that few do is known from so few.
    """
    u, v = _totals(group.counts)
    lo, hi = np.full((2, len(u)), np.nan)
    if draws is not None and group.n_units > 1:
        n_units = (group.counts[0] != group.counts[1]).sum(axis=0)
        error = standard_error(_influences(group.counts))
        several = np.flatnonzero(n_units > 1)
        size = max(1, _ENTRIES // len(draws.taken))
        for first in range(0, len(several), size):
            draws.go_on()
            at = several[first : first + size]
            resampled = _resampled_delta(draws.taken, group.counts, at)
            ends = percentile_interval((u - v)[at], resampled, error[at], n_units[at])
            lo[at], hi[at] = (end.clip(-1, 1) for end in ends)
    return {"u_a": u, "u_b": v, "delta_u": u - v, "delta_u_lo": lo, "delta_u_hi": hi}


def _totals(sides: tuple[Float64Array, Float64Array]) -> tuple[Float64Array, Float64Array]:
    """Give the usage over all units, [E], of both conditions."""
    return shares(sides[0].sum(axis=0)), shares(sides[1].sum(axis=0))


def _influences(sides: tuple[Float64Array, Float64Array]) -> Float64Array:
    """Give what each unit does to the differences of usage, [N, E]."""
    a, b = (ratio_influences(side, side.sum(axis=1, keepdims=True)) for side in sides)
    return a - b


def _resampled_delta(
    taken: Float64Array, sides: tuple[Float64Array, Float64Array], experts: npt.NDArray[Any]
) -> Float64Array:
    """Give the differences of usage of some experts, resampled, [E, R]."""
    a, b = (resampled_ratios(taken, side[:, experts], side.sum(axis=1, keepdims=True)) for side in sides)
    return a - b

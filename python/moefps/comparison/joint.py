"""How differently two conditions use the experts of one layer: group by group, with intervals over tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.comparison.association import pearson
from moefps.comparison.resampling import basic_interval, percentile_interval
from moefps.comparison.usage import js_divergence, shares, total_variation, usage_entropy

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
    """

    taken: Float64Array
    exchanged: Float64Array


@dataclass(frozen=True, eq=False)
class GroupUsage:
    """What one group uses in one layer.

    Attributes
    ----------
    counts : tuple of ndarray of float64 [N, E]
        Assignments over the tokens that are compared, by unit: of `a` and of `b`.
    weights : tuple of ndarray of float64 [N, E] or None
        The same in shares of weights.
    alone : bool
        Whether fewer than two units have a token.
    """

    counts: tuple[Float64Array, Float64Array]
    weights: tuple[Float64Array, Float64Array] | None
    alone: bool


@dataclass(eq=False)
class LayerUsage:
    """What is found of one layer.

    Attributes
    ----------
    rows : list of dict
        A row a group of the joint table, without the counts of tokens.
    delta : ndarray of float64 [2, E] or None
        Differences of usage in the two groups of leakage; None where one has no token.
    r : tuple of float
        Pearson's correlation of the two, and its interval; NaN where it is not defined.
    experts : dict of str to ndarray
        All experts, ascending, of the group `whole`: ``u_a``, ``u_b``, ``delta_u``, ``delta_u_lo``, ``delta_u_hi``;
        empty where it has no token.
    """

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    delta: Float64Array | None = None
    r: tuple[float, float, float] = (np.nan, np.nan, np.nan)
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
        The groups to give a row of the joint table.
    whole : str
        The group whose experts are listed, all of them.
    leakage : tuple of str or None
        The two groups whose differences are correlated.
    draws : Resamples or None
        None for no intervals.
    """
    found = LayerUsage()
    for name in wanted:
        if name in groups:
            found.rows[name] = _joint(groups[name], draws)
    if whole in groups:
        found.experts = _experts(groups[whole], draws)
    if leakage is not None and all(name in groups for name in leakage):
        pair = [groups[name] for name in leakage]
        found.delta = np.stack([_delta(*_totals(group.counts)) for group in pair])
        found.r = _correlate(found.delta, pair, draws)
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
        if draws is None or group.alone:
            continue
        resampled = _in_chunks(draws.taken, lambda taken, ab=sides: js_divergence(*_resampled(taken, ab)))
        lo, hi = basic_interval(np.array(row[f"usage_js{suffix}"]), resampled, least=0.0)
        by_chance = _in_chunks(draws.exchanged, lambda moved, ab=sides: _exchanged_tv(moved, ab)).mean()
        row |= {f"usage_js{suffix}_lo": float(lo), f"usage_js{suffix}_hi": float(hi)}
        row[f"usage_tv_null{suffix}"] = float(by_chance)
    return row


def _experts(group: GroupUsage, draws: Resamples | None) -> dict[str, npt.NDArray[Any]]:
    """Give the usage of every expert, and how it differs."""
    u, v = _totals(group.counts)
    lo = hi = np.full(len(u), np.nan)
    if draws is not None and not group.alone:
        resampled = _in_chunks(draws.taken, lambda taken: _delta(*_resampled(taken, group.counts)))
        lo, hi = percentile_interval(resampled)
    return {"u_a": u, "u_b": v, "delta_u": u - v, "delta_u_lo": lo, "delta_u_hi": hi}


def _correlate(delta: Float64Array, pair: Sequence[GroupUsage], draws: Resamples | None) -> tuple[float, float, float]:
    r = pearson(delta[0], delta[1])
    if draws is None or np.isnan(r) or any(group.alone for group in pair):
        return float(r), np.nan, np.nan
    resampled = _in_chunks(
        draws.taken, lambda taken: pearson(*(_delta(*_resampled(taken, group.counts)) for group in pair))
    )
    lo, hi = basic_interval(r, resampled, least=-1.0, most=1.0)
    return float(r), float(lo), float(hi)


def _totals(sides: tuple[Float64Array, Float64Array]) -> tuple[Float64Array, Float64Array]:
    """Give the usage over all units, [E], of both conditions."""
    return shares(sides[0].sum(axis=0)), shares(sides[1].sum(axis=0))


def _resampled(taken: Float64Array, sides: tuple[Float64Array, Float64Array]) -> tuple[Float64Array, Float64Array]:
    return shares(taken @ sides[0]), shares(taken @ sides[1])


def _exchanged_tv(exchanged: Float64Array, sides: tuple[Float64Array, Float64Array]) -> Float64Array:
    a, b = sides
    moved = exchanged @ (a - b)
    return total_variation(shares(a.sum(axis=0) - moved), shares(b.sum(axis=0) + moved))


def _delta(u: Float64Array, v: Float64Array) -> Float64Array:
    return u - v


def _in_chunks(draws: Float64Array, compute: Any) -> Float64Array:
    """Compute a value for each draw, some draws at a time."""
    size = max(1, _ENTRIES // 512)
    return np.concatenate([compute(draws[first : first + size]) for first in range(0, len(draws), size)])

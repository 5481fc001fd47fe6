"""From what was measured to the tables of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps._progress import progress_callback
from moefps.comparison.distances import distance_table
from moefps.comparison.grouping import CANONICAL, TOOL
from moefps.comparison.joint import usage_row
from moefps.comparison.leakage import leakage_by_layer, leakage_summary
from moefps.comparison.measures import layer_table
from moefps.comparison.result import Comparison
from moefps.comparison.summarising import summarise
from moefps.comparison.usage import shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from moefps._typing import Progress
    from moefps.comparison.joint import LayerUsage
    from moefps.comparison.measuring import Measured
    from moefps.kernels import RoutingCounts

__all__ = ["assemble"]

_JOINT = (
    *("usage_entropy_a", "usage_entropy_b", "top1_share_a", "top1_share_b", "top5_share_a", "top5_share_b"),
    *("usage_tv", "usage_tv_null", "usage_js"),
)
_JOINT_COLUMNS = tuple(
    name
    for weighted in ("", "_weighted")
    for measure in _JOINT
    for name in (
        [f"{measure}{weighted}{end}" for end in ("", "_lo", "_hi")] if measure == "usage_js" else [measure + weighted]
    )
)
MOST_EXPERTS = 64
"""Experts with the largest differences that are listed, of a layer or of all."""
_USAGE: dict[str, Any] = {"layer": pl.Int64, "expert": pl.Int64}
_USAGE |= dict.fromkeys(("u_a", "u_b", "delta_u", "delta_u_lo", "delta_u_hi"), pl.Float64)


def assemble(measured: Measured, progress: Progress = False) -> Comparison:
    """Make the tables, and the summary of them."""
    names = measured.match.grouping.names
    places = {name: names.index(name) for name in measured.wanted}
    counts = measured.tokens.counts.sum(axis=0)
    leaking = {name: counts[names.index(name)] for name in (TOOL, CANONICAL) if name in names}
    with progress_callback(progress, "intervals") as advance:
        layers = layer_table(measured.tokens, places, measured.taken, advance)
    tables = {
        "layer_metrics": layers,
        "layer_joint_metrics": _joint_table(measured, places),
        "expert_usage": _expert_usage(measured.usage),
        "tool_expert_leakage_by_layer": leakage_by_layer(measured.usage),
        "tool_expert_leakage_summary": leakage_summary(
            measured.usage, leaking, measured.n_experts, n_resamples=measured.n_resamples, seed=measured.seed
        ),
        "leakage_vs_distance": distance_table(measured.distances, measured.taken),
    }
    tables["top_experts_by_layer"] = _largest(tables["expert_usage"], of_each="layer")
    tables["top_experts_global"] = _largest(tables["expert_usage"])
    return Comparison(**tables, summary=summarise(measured, tables))


def _joint_table(measured: Measured, places: dict[str, int]) -> pl.DataFrame:
    """Make the table of usage: a row a layer and group."""
    both = measured.tokens.counts.sum(axis=0).astype(np.int64)
    of_sides = [_tokens_of(side, both, measured) for side in measured.sides]
    rows: list[dict[str, Any]] = []
    for layer, found in enumerate(measured.usage):
        for name, place in places.items():
            sizes = [int(of[place, layer]) for of in of_sides]
            row = found.rows.get(name)
            if row is None:
                row = _own_usage(measured, place, layer)
            counted = {"N_both": int(both[place, layer]), "N_a": sizes[0], "N_b": sizes[1]}
            rows.append({"layer": layer, "group": name, **counted, **row})
    schema: dict[str, Any] = {"layer": pl.Int64, "group": pl.String}
    schema |= dict.fromkeys(("N_both", "N_a", "N_b"), pl.Int64) | dict.fromkeys(_JOINT_COLUMNS, pl.Float64)
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _tokens_of(side: RoutingCounts | None, both: npt.NDArray[Any], measured: Measured) -> npt.NDArray[Any]:
    """Give the tokens of one dump with a filled slot, [G, L]."""
    return both if side is None else measured.match.grouping.add_up(side.tokens, axis=0)


def _own_usage(measured: Measured, place: int, layer: int) -> dict[str, float]:
    """Describe the usage of a group that has no token in both dumps: each by its own tokens."""
    width = measured.n_experts[layer]
    nothing = np.full(width, np.nan)
    members = measured.match.grouping.members[place]
    row: dict[str, float] = {}
    for suffix, name in (("", "activations"), ("_weighted", "share_sums")):
        used = []
        for side in measured.sides:
            of = None if side is None else getattr(side, name)
            used.append(nothing if of is None else shares(of[members, layer, :width].sum(axis=0).astype(np.float64)))
        row |= usage_row(used[0], used[1], suffix)
    return row


def _expert_usage(usage: Sequence[LayerUsage]) -> pl.DataFrame:
    """Make the table of experts: a row a layer and expert, of the layers where a token is compared."""
    parts = [
        pl.DataFrame({"layer": layer, "expert": np.arange(len(found.experts["u_a"])), **found.experts}, schema=_USAGE)
        for layer, found in enumerate(usage)
        if found.experts
    ]
    frame = pl.concat(parts) if parts else pl.DataFrame(schema=_USAGE)
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _largest(experts: pl.DataFrame, *, of_each: str | None = None) -> pl.DataFrame:
    """List the experts with the largest differences, of all or of each layer; of equal ones, the first."""
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    return (
        # Rounded, so that what is equal but for the last place keeps its order.
        experts.sort(pl.col("delta_u").abs().round(12), descending=True, maintain_order=True)
        .with_columns(rank=rank if of_each is None else rank.over(of_each))
        .filter(pl.col("rank") <= MOST_EXPERTS)
        .sort(*([] if of_each is None else [of_each]), "rank")
        .select("layer", "rank", "expert", "u_a", "u_b", "delta_u", "delta_u_lo", "delta_u_hi")
    )

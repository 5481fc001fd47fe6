"""What stands out of a comparison, as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps._version import __version__
from moefps._words import counted
from moefps.comparison.distances import distance_trend
from moefps.comparison.grouping import ALL, PAIR_GROUPS, TOOL
from moefps.comparison.measures import layer_table, mean_over_layers, with_interval
from moefps.comparison.reduction import has_shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moefps.comparison.measuring import Measured

__all__ = ["summarise"]

_MOST = 5
_RESPONSES = {
    "all": "tool_response",
    "docstring": "tool_response_docstring",
    "non_docstring": TOOL,
}


def summarise(measured: Measured, tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Give the summary: JSON's own types alone, null for what is not defined."""
    match = measured.match
    of_all = tables["layer_metrics"].filter(pl.col("group") == ALL)
    if not of_all.height:
        of_all = layer_table(measured.tokens, {ALL: 0}, measured.taken)
    leakage = tables["tool_expert_leakage_summary"]
    classes = np.bincount(match.kind[measured.compared], minlength=match.grouping.n_classes)
    counts = match.grouping.add_up(classes, axis=0).astype(int).tolist()
    return {
        "a": match.a.name,
        "b": match.b.name,
        "condition_a": match.a.condition,
        "condition_b": match.b.condition,
        "models": {side.label: dict(side.dump.manifest.model) for side in (match.a, match.b)},
        "captured": {side.label: side.dump.manifest.created for side in (match.a, match.b)},
        "n_tasks": len(match.tasks),
        "n_layers": match.a.dump.n_layers,
        "n_experts": max(measured.n_experts),
        "top_k": match.a.dump.top_k,
        "top_tv_layers": _extreme(of_all, "tv", descending=True),
        "low_jaccard_layers": _extreme(of_all, "jaccard", descending=False),
        "top_tv_groups": _top_groups(measured),
        "usage_beyond_chance": _beyond_chance(measured),
        "tool_response_tv": _response_tv(measured),
        "top_r_layers": _top_r(leakage),
        "n_layers_tested": leakage["p"].count(),
        "n_layers_significant": int((leakage["q"] < 0.05).sum()),
        "n_layers_beyond_tasks": leakage.filter(pl.col("q") < 0.05, (pl.col("r_lo") > 0) | (pl.col("r_hi") < 0)).height,
        "distance_trend": distance_trend(measured.distances, measured.taken),
        **{f"count_{name}": number for name, number in zip(match.grouping.names, counts, strict=True)},
        "one_sided": _one_sided(measured, counts),
        "left_out": match.about["left_out"],
        "tasks_without_response": match.about["tasks_without_response"],
        "by": match.about.get("by"),
        "has_weights": has_shares(match),
        "n_resamples": measured.n_resamples,
        "tasks_per_unit": measured.units.tasks_per_unit,
        "intervals": _intervals(measured),
        "seed": measured.seed,
        "tool_versions": {"moefps": __version__},
    }


def _extreme(of_all: pl.DataFrame, name: str, *, descending: bool) -> list[dict[str, Any]]:
    """Give the layers with the largest or smallest mean; of equal ones, the first."""
    there = of_all.filter(pl.col(name).is_not_null())
    ranked = there.sort(pl.col(name).round(12), descending=descending, maintain_order=True)
    return ranked.head(_MOST).select("layer", name, f"{name}_lo", f"{name}_hi").to_dicts()


def _top_groups(measured: Measured) -> list[dict[str, Any]] | None:
    """Give the groups of a column with the largest means over layers of TV; None where groups are of no column."""
    if measured.match.about.get("by") is None or "tv" not in measured.tokens.sums:
        return None
    found: list[tuple[float, dict[str, Any]]] = []
    for name in measured.wanted:
        place = measured.match.grouping.names.index(name)
        of = mean_over_layers(measured.tokens.sums["tv"][:, place], measured.tokens.counts[:, place], measured.taken)
        if name != ALL and of is not None:
            ends = with_interval(of, least=0.0)
            found.append((of.mean, {"group": name, **dict(zip(("tv", "tv_lo", "tv_hi"), ends, strict=True))}))
    found.sort(key=lambda one: -round(one[0], 12))
    return [row for _, row in found[:_MOST]]


def _beyond_chance(measured: Measured) -> dict[str, int] | None:
    """Count the layers whose use of experts differs by more than chance gives; None where there is no interval."""
    rows = [found.rows[ALL] for found in measured.usage if ALL in found.rows]
    lo = [row["usage_js_lo"] for row in rows if "usage_js_lo" in row]
    return {"n_layers": sum(end > 0 for end in lo), "n_layers_tested": len(lo)} if lo else None


def _top_r(leakage: pl.DataFrame) -> list[dict[str, Any]]:
    there = leakage.filter(pl.col("r").is_not_null()).head(_MOST)
    return there.select("layer", "r", "r_lo", "r_hi", "p", "q").to_dicts()


def _response_tv(measured: Measured) -> dict[str, float | None] | None:
    """Give means over layers of TV on tool responses, and how much more it is off the docstrings."""
    if measured.match.grouping is not PAIR_GROUPS or "tv" not in measured.tokens.sums:
        return None
    means = {}
    for word, group in _RESPONSES.items():
        place = PAIR_GROUPS.names.index(group)
        sums, counts = measured.tokens.sums["tv"][:, place], measured.tokens.counts[:, place]
        means[word] = mean_over_layers(sums, counts, measured.taken)
    found = {word: None if mean is None else mean.mean for word, mean in means.items()}
    found |= dict.fromkeys(("ratio", "difference", "difference_lo", "difference_hi"))
    docstring, other = means["docstring"], means["non_docstring"]
    if docstring is None or other is None:
        return found
    found["ratio"] = other.mean / docstring.mean if docstring.mean else None
    names = ("difference", "difference_lo", "difference_hi")
    return found | dict(zip(names, with_interval(other.less(docstring)), strict=True))


def _one_sided(measured: Measured, counts: list[int]) -> dict[str, str | None]:
    """Name the groups without a token that is compared, and which dump has some, if any."""
    found: dict[str, str | None] = {}
    for place, (name, number) in enumerate(zip(measured.match.grouping.names, counts, strict=True)):
        if number or name not in measured.wanted:
            continue
        members = measured.match.grouping.members[place]
        having = [
            label
            for label, side in zip("ab", measured.sides, strict=True)
            if side is not None and side.tokens[members].any()
        ]
        found[name] = " and ".join(having) or None
    return found


def _intervals(measured: Measured) -> str:
    """Say what the intervals are, or why there are none."""
    if measured.n_resamples == 0:
        return "none: no resamples were asked for"
    if measured.draws is None:
        return "none: one task, there is nothing to resample"
    per_unit = measured.units.tasks_per_unit
    drawn = "tasks" if per_unit == 1 else f"blocks of up to {per_unit} tasks"
    return f"95 %, {counted(measured.n_resamples, 'resample')} of {drawn}"

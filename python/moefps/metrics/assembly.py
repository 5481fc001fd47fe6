"""Putting a result together: values, reasons, chance levels, targets and intervals side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps.metrics.aggregation import PERCENTILES, aggregate_layers
from moefps.metrics.evaluation import evaluate, evaluate_lists, reason_missing
from moefps.metrics.registry import find_metrics
from moefps.metrics.result import PairCounts, RoutingMetrics
from moefps.metrics.tables import MetricTables, build_tables
from moefps.metrics.targets import judge, thresholds

if TYPE_CHECKING:
    from moefps.metrics.metric import Better, Metric, Target
    from moefps.metrics.resampling import Intervals
    from moefps.metrics.sums import Sums

__all__ = ["Request", "Uncertainty", "assemble", "choose_metrics", "interval_metrics"]

NO_GROUPS = "the tokens are not grouped: give by= (--by)"
_NO_INTERVAL = {
    "vectors": "expert vectors do not depend on the samples",
    "outputs": "outputs are not kept by sample",
    "windows": "windows of tokens are not counted by sample",
    "token_ids": "token ids are not counted by sample",
}


@dataclass(frozen=True, eq=False)
class Request:
    """What is wanted.

    Attributes
    ----------
    metrics : mapping of str to Metric
        By the names that they were asked for by.
    targets : mapping of str to Target
        By the metrics' own names.
    capacity_factor : float
        For the capacity metrics.
    """

    metrics: Mapping[str, Metric]
    targets: Mapping[str, Target] = field(default_factory=dict)
    capacity_factor: float = 1.25

    @property
    def scalars(self) -> list[Metric]:
        """Those with one number a layer, each once; of those with a command of their own, a row says so."""
        return [of for of in dict.fromkeys(self.metrics.values()) if of.is_scalar or of.command is not None]

    def needs(self, what: str) -> bool:
        """Whether a metric needs something."""
        return any(what in metric.needs for metric in self.metrics.values())


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Bootstrap intervals, or why there are none.

    Attributes
    ----------
    intervals : Intervals or None
        With the column ``group`` where there are groups; None where no intervals were asked for.
    reasons : mapping of str to str
        Why a metric has none, by what it needs; the key ``""`` is for all metrics.
    groups : mapping of group to str
        Why a group has none.
    metrics : mapping of str to str
        Why a metric has none, by its name.
    """

    intervals: Intervals | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[Any, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)

    def reason(self, metric: Metric) -> str | None:
        """Say why a metric has no interval in any group."""
        for text in (self.reasons.get(""), self.metrics.get(metric.name), metric.no_interval):
            if text is not None:
                return text
        return next(
            (text for text in (self.reasons.get(need) or _NO_INTERVAL.get(need) for need in metric.needs) if text), None
        )


def choose_metrics(names: Sequence[str] | str | None) -> dict[str, Metric]:
    """Find metrics by the names that a caller gives; when none are given, all but those with a command of their own.

    Raises
    ------
    ArgumentError
        A name is no metric's; the nearest is suggested.
    """
    found = find_metrics(names)
    return found if names is not None else {name: of for name, of in found.items() if of.command is None}


def interval_metrics(request: Request, uncertainty: Uncertainty) -> list[Metric]:
    """Give the metrics that a bootstrap is for."""
    return [metric for metric in request.scalars if uncertainty.reason(metric) is None]


def assemble(
    sums: Sums,
    request: Request,
    *,
    groups: pl.Series | None = None,
    descriptors: pl.DataFrame | None = None,
    columns: Sequence[pl.DataFrame] = (),
    missing: Mapping[str, str] | None = None,
    uncertainty: Uncertainty | None = None,
    replaced: pl.DataFrame | None = None,
    directions: Mapping[str, Better] | None = None,
    about: Mapping[str, Any] | None = None,
) -> RoutingMetrics:
    """Compute metrics and lay them out.

    Parameters
    ----------
    sums : Sums
        A cell a group, or one.
    request : Request
        What is wanted.
    groups : polars.Series [G], optional
        The groups; None for one cell of all tokens.
    descriptors : polars.DataFrame, optional
        A row a layer, with ``layer``, what is known of it, ``routing_type`` perhaps, and ``no_`` + need with reasons.
    columns : sequence of polars.DataFrame
        More columns of layers, joined by the keys that they have.
    missing : mapping of str to str, optional
        What is not there, and why.
    uncertainty : Uncertainty, optional
        Intervals.
    replaced : polars.DataFrame, optional
        Values of another convention, to take where it has them: the keys, ``metric``, ``value``, ``reason``.
    directions : mapping of str to {"up", "down", "-"}, optional
        Which way is better in that convention, where it differs.
    about : mapping, optional
        What was measured and how.

    Returns
    -------
    RoutingMetrics
    """
    keys = {} if groups is None else {"group": groups}
    absent = {**({"domains": NO_GROUPS} if groups is None else {}), **(missing or {})}
    tables = build_tables(sums, keys, capacity_factor=request.capacity_factor, missing=absent)
    descriptors = pl.DataFrame({"layer": sums.layers}) if descriptors is None else descriptors
    for frame in (*columns, descriptors.select("layer", pl.col("^no_.*$"))):
        tables = tables.with_columns(frame)
    values = _values(tables, request, descriptors)
    if replaced is not None:
        values = _overlaid(values, replaced, tables, request)
    layers = _judged(values, tables, request)
    layers = _with_intervals(layers, tables, request, uncertainty)
    outer = list(tables.keys[:-1])
    layers = layers.select(
        *tables.keys,
        "metric",
        "value",
        "text",
        "reason",
        "chance",
        "target",
        "threshold",
        "met",
        "note",
        "lo",
        "hi",
        "reason_ci",
    )
    pairs = None
    if sums.coactivation is not None and sums.top_k is not None:
        pairs = PairCounts(sums.coactivation, sums.n_experts, sums.top_k, sums.layers, groups)
    return RoutingMetrics(
        layers=_named(layers, request),
        summary=_named(_summary(layers, request, uncertainty, outer, directions or {}), request),
        experts=_experts(tables),
        details=_details(tables, descriptors),
        domains=None if groups is None else _domains(tables),
        about=dict(about or {}),
        pairs=pairs,
    )


def _values(tables: MetricTables, request: Request, descriptors: pl.DataFrame) -> pl.DataFrame:
    """Give a row a key and metric, with ``value``, ``text``, ``reason``."""
    scalars = evaluate(tables, request.scalars)
    lists = evaluate_lists(tables, request.scalars)
    scalars = scalars.join(lists, on=[*tables.keys, "metric"], how="left", maintain_order="left")
    scalars = scalars.with_columns(text=pl.when(pl.col("value").is_not_null()).then(pl.col("text")))
    parts = [scalars]
    for metric in request.metrics.values():
        if metric.level == "text":
            there = tables.layers.select(*tables.keys).join(descriptors, on="layer", how="left", maintain_order="left")
            text = pl.col(metric.name) if metric.name in there.columns else pl.lit(None, dtype=pl.String)
            why = reason_missing(metric, tables) or "not known of this layer"
            parts.append(
                there.select(
                    *tables.keys,
                    metric=pl.lit(metric.name),
                    value=pl.lit(None, dtype=pl.Float64),
                    reason=pl.when(text.is_null()).then(pl.lit(why)),
                    text=text,
                )
            )
    return _in_order(pl.concat(parts, how="diagonal"), tables, request)


def _in_order(values: pl.DataFrame, tables: MetricTables, request: Request) -> pl.DataFrame:
    """Sort rows by key, as the tables have them, then by metric, as they were asked for."""
    place = {metric.name: i for i, metric in reversed(list(enumerate(request.metrics.values())))}
    rows = tables.layers.select(*tables.keys).with_row_index("_row")
    order = pl.col("metric").replace_strict(place, default=len(place), return_dtype=pl.UInt32)
    return (
        values.join(rows, on=tables.keys, how="left", maintain_order="left")
        .sort("_row", order, maintain_order=True)
        .drop("_row")
    )


def _overlaid(values: pl.DataFrame, replaced: pl.DataFrame, tables: MetricTables, request: Request) -> pl.DataFrame:
    """Take the values of another convention where it has them."""
    asked = {metric.name for metric in request.metrics.values()}
    others = replaced.filter(pl.col("metric").is_in(asked)).with_columns(is_other=pl.lit(value=True))
    kept = values.join(others, on=[*tables.keys, "metric"], how="anti", maintain_order="left")
    columns = [*tables.keys, "metric", "value", "reason", "is_other"]
    return _in_order(pl.concat([kept, others.select(columns)], how="diagonal_relaxed"), tables, request)


def _judged(values: pl.DataFrame, tables: MetricTables, request: Request) -> pl.DataFrame:
    """Add chance levels, targets and whether they are met."""
    keys = [*tables.keys, "metric"]
    chances = [
        tables.layers.select(*tables.keys, metric=pl.lit(metric.name), chance=metric.chance_value.fill_nan(None))
        for metric in request.scalars
        if metric.chance_value is not None
    ]
    empty = values.select(*keys, chance=pl.lit(None, dtype=pl.Float64)).clear()
    values = values.join(pl.concat([empty, *chances]), on=keys, how="left", maintain_order="left")
    if "is_other" in values.columns:
        # Chance levels are those of the definitions here.
        values = values.with_columns(chance=pl.when(pl.col("is_other").is_null()).then(pl.col("chance")))
    wanted = thresholds(tables.layers, request.targets, tables.keys)
    values = values.join(wanted, on=keys, how="left", maintain_order="left")
    return values.with_columns(judge(request.targets).alias("met"), _note(request))


def _note(request: Request) -> pl.Expr:
    """Say where even balanced chance is above what a target allows."""
    below = {name: target for name, target in request.targets.items() if target.op in {"<", "<="}}
    return pl.when(~judge(below, "chance")).then(pl.lit(_CHANCE_MISSES)).alias("note")


_CHANCE_MISSES = "independent uniform choice is above the target, too"


def _with_intervals(
    layers: pl.DataFrame, tables: MetricTables, request: Request, uncertainty: Uncertainty | None
) -> pl.DataFrame:
    """Add ``lo``, ``hi`` and ``reason_ci``."""
    nothing = pl.lit(None, dtype=pl.Float64)
    if uncertainty is None:
        return layers.with_columns(lo=nothing, hi=nothing, reason_ci=pl.lit(None, dtype=pl.String))
    if uncertainty.intervals is None:
        layers = layers.with_columns(lo=nothing, hi=nothing)
    else:
        layers = layers.join(
            uncertainty.intervals.layers, on=[*tables.keys, "metric"], how="left", maintain_order="left"
        )
    return layers.with_columns(_reason(request, uncertainty, pl.col("value")))


def _reason(request: Request, uncertainty: Uncertainty, value: pl.Expr) -> pl.Expr:
    """Say why rows have no interval."""
    why = {metric.name: uncertainty.reason(metric) for metric in request.metrics.values()}
    reasons = [
        pl.when(value.is_null()).then(pl.lit("there is no value")),
        pl.col("metric").replace_strict(why, default=None, return_dtype=pl.String),
    ]
    for group, why_not in uncertainty.groups.items():
        reasons.append(pl.when(pl.col("group") == group).then(pl.lit(why_not)))
    text = pl.coalesce(*reasons, pl.lit("not defined in any resample"))
    return pl.when(pl.col("lo").is_null()).then(text).alias("reason_ci")


def _summary(
    layers: pl.DataFrame,
    request: Request,
    uncertainty: Uncertainty | None,
    outer: list[str],
    directions: Mapping[str, Better],
) -> pl.DataFrame:
    """Aggregate over layers, and judge and bound the means."""
    scalars = layers.filter(pl.col("metric").is_in([metric.name for metric in request.scalars]))
    summary = aggregate_layers(scalars, outer)
    better = {metric.name: directions.get(metric.name, metric.better) for metric in request.metrics.values()}
    summary = summary.with_columns(
        pl.col("metric").replace_strict(better, default="-", return_dtype=pl.String).alias("better"),
        judge(request.targets, "mean").alias("met"),
        _note(request),
    )
    nothing = pl.lit(None, dtype=pl.Float64)
    if uncertainty is None:
        summary = summary.with_columns(lo=nothing, hi=nothing, reason_ci=pl.lit(None, dtype=pl.String))
    else:
        if uncertainty.intervals is None:
            summary = summary.with_columns(lo=nothing, hi=nothing)
        else:
            means = uncertainty.intervals.means
            summary = summary.join(means, on=[*outer, "metric"], how="left", maintain_order="left")
        summary = summary.with_columns(_reason(request, uncertainty, pl.col("mean")))
    return summary.select(
        *outer,
        *("metric", "n_layers", "n_null", "mean", "min", "max", "std"),
        *(f"p{p}" for p in PERCENTILES),
        *("better", "chance", "target", "threshold", "met", "n_missed", "note", "reason", "lo", "hi", "reason_ci"),
    )


def _named(frame: pl.DataFrame, request: Request) -> pl.DataFrame:
    """Give metrics the names that they were asked for by, one or several."""
    names = pl.DataFrame(
        {"metric": [metric.name for metric in request.metrics.values()], "_asked": list(request.metrics)},
        schema={"metric": pl.String, "_asked": pl.String},
    )
    named = frame.join(names, on="metric", how="left", maintain_order="left_right")
    return named.with_columns(metric=pl.coalesce("_asked", "metric")).drop("_asked")


def _experts(tables: MetricTables) -> pl.DataFrame:
    """Give the vectors by expert, under their metrics' names."""
    c, total = pl.col("activations"), pl.col("activations").sum().over(tables.keys)
    there = pl.lit(value=True) if "trace" not in tables.missing else pl.lit(None, dtype=pl.Boolean)
    n_experts = pl.col("activations").len().over(tables.keys)
    used = total > 0
    return tables.experts.select(
        *tables.keys,
        "expert",
        expert_token_counts=pl.col("token_count"),
        expert_activation_counts=pl.when(there).then(c),
        expert_weighted_counts=pl.col("weight_sum"),
        expert_token_proportions=pl.when(used).then(c / total),
        is_dead=pl.when(used).then(c == 0),
        is_underused=pl.when(used).then(c < 0.5 * total / n_experts),
    )


def _details(tables: MetricTables, descriptors: pl.DataFrame) -> pl.DataFrame:
    """Give what is known of each layer, and what was counted and left out."""
    counted = tables.layers.select(*tables.keys, "n_experts", "top_k", *_COUNTED)
    known = descriptors.select(pl.exclude("^no_.*$"))
    return counted.join(known, on="layer", how="left", maintain_order="left")


_COUNTED = (
    "rows",
    "tokens",
    "assignments",
    "passive_slots",
    "empty_slots",
    "tokens_without_shares",
    "tokens_without_probs",
    "pairs",
    "pairs_without_shares",
)


def _domains(tables: MetricTables) -> pl.DataFrame:
    """Give the table of what each group makes of each expert."""
    of = ["layer", "expert"]
    frame = tables.experts.select(*tables.keys, "expert", "token_count").join(
        tables.layers.select(*tables.keys, "tokens", "top_k", "n_experts"), on=tables.keys, maintain_order="left"
    )
    n, own, whole = pl.col("tokens"), pl.col("token_count"), pl.col("token_count").sum().over(of)
    all_tokens = n.sum().over(of)
    share = pl.when(n > 0).then(own / n)
    used = whole > 0
    possible = pl.col("top_k") <= pl.col("n_experts")
    return frame.select(
        *tables.keys,
        "expert",
        tokens=own,
        domain_specialization=share,
        chance=pl.when(possible).then(pl.col("top_k") / pl.col("n_experts")),
        domain_affinity=pl.when(used).then(share / (whole / all_tokens)),
        domain_purity=pl.when(used).then(own.max().over(of) / whole),
    )

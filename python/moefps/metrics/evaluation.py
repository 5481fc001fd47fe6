"""From the two tables to values: one aggregation a metric, and a reason where there is no value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps.metrics.metric import Metric
    from moefps.metrics.tables import MetricTables

__all__ = ["evaluate", "evaluate_lists", "evaluate_wide"]

_WHEN_NULL = {
    "weights": "the layer has no weights",
    "logits": "the layer's scoring gives no full distribution",
    "neighbours": "neighbouring tokens were not counted",
    "pairs": "pairs of experts were not counted",
    "vectors": "the layer has no expert vectors",
}
_NOT_DEFINED = "not defined for what was counted"


def reason_missing(metric: Metric, tables: MetricTables) -> str | None:
    """Say why a metric cannot be computed from tables at all, if so."""
    if metric.command is not None:
        return f"`{metric.command}` computes it"
    return next((tables.missing[need] for need in metric.needs if need in tables.missing), None)


def evaluate_wide(tables: MetricTables, metrics: Sequence[Metric]) -> pl.DataFrame:
    """Compute scalar metrics, without reasons.

    Parameters
    ----------
    tables : MetricTables
        What to compute them from.
    metrics : sequence of Metric
        Which; those that cannot be computed from these tables at all are left out.

    Returns
    -------
    polars.DataFrame
        A row a key, sorted as in ``tables.layers``; a column of Float64 for each metric, null where it is not defined.
    """
    frame, computed, _ = _aggregate(tables, metrics)
    return frame.select(*tables.keys, *(metric.name for metric in computed))


def evaluate(tables: MetricTables, metrics: Sequence[Metric]) -> pl.DataFrame:
    """Compute scalar metrics, with a reason where there is no value.

    Parameters
    ----------
    tables : MetricTables
        What to compute them from.
    metrics : sequence of Metric
        Which; in this order.

    Returns
    -------
    polars.DataFrame
        A row a key and metric: the keys, ``metric``, ``value``, ``reason``.
    """
    wide, computed, flags = _aggregate(tables, metrics)
    done = {metric.name for metric in computed}
    reasons = [name for name in tables.layers.columns if name.startswith("no_")]
    if reasons:
        wide = wide.join(tables.layers.select(*tables.keys, *reasons), on=tables.keys, maintain_order="left")
    if not metrics:
        return wide.select(*tables.keys, metric=pl.lit(""), value=pl.lit(0.0), reason=pl.lit("")).clear()
    # One select for all: a call of polars costs more than a row of it.
    values, said = [], []
    for metric in metrics:
        absent = reason_missing(metric, tables)
        if metric.name in done:
            value = pl.col(metric.name)
            reason = pl.coalesce(
                *_reasons_of_layers(metric, tables),
                *(pl.when(pl.col(flags[id(condition)])).then(pl.lit(text)) for condition, text in metric.undefined),
                pl.lit(next((_WHEN_NULL[need] for need in metric.needs if need in _WHEN_NULL), _NOT_DEFINED)),
            )
            reason = pl.when(value.is_null()).then(reason)
        else:
            value, reason = pl.lit(None, dtype=pl.Float64), pl.lit(absent or _NOT_DEFINED)
        values.append(value.alias(metric.name))
        said.append(reason.cast(pl.String).alias(metric.name))
    keys = list(tables.keys)
    row = pl.int_range(pl.len(), dtype=pl.UInt32).alias("_row")
    long = wide.select(*keys, row, *values).unpivot(index=[*keys, "_row"], variable_name="metric", value_name="value")
    reason_of = wide.select(said).unpivot(variable_name="metric", value_name="reason")["reason"]
    return long.with_columns(reason_of).sort("_row", maintain_order=True).drop("_row")


def evaluate_lists(tables: MetricTables, metrics: Sequence[Metric]) -> pl.DataFrame:
    """Give the experts that each metric of level ``list`` names.

    Returns
    -------
    polars.DataFrame
        A row a key and metric: the keys, ``metric``, ``text`` such as ``"3, 17"``.
    """
    wanted = [metric for metric in metrics if metric.level == "list" and metric.value is not None]
    frame = _joined(tables, wanted).group_by(*tables.keys, maintain_order=True)
    wide = frame.agg(
        *(
            pl.col("expert").filter(metric.value).cast(pl.String).str.join(", ").alias(metric.name)  # type: ignore[arg-type]
            for metric in wanted
        )
    )
    lists = wide.unpivot(
        [metric.name for metric in wanted], index=list(tables.keys), variable_name="metric", value_name="text"
    )
    # Without any list, the column has no type of its own.
    return lists.cast({"metric": pl.String, "text": pl.String})


def _aggregate(tables: MetricTables, metrics: Sequence[Metric]) -> tuple[pl.DataFrame, list[Metric], dict[int, str]]:
    """Give the values of the metrics that can be computed, which those are, and the columns of their conditions."""
    columns = {*tables.layers.columns, *tables.experts.columns}
    computed = [
        metric
        for metric in metrics
        if metric.is_scalar
        and metric.value is not None
        and reason_missing(metric, tables) is None
        and columns.issuperset(metric.value.meta.root_names())
    ]
    if not computed:
        return tables.layers.select(*tables.keys), [], {}
    conditions = {id(condition): condition for metric in computed for condition, _ in metric.undefined}
    flags = {key: f"_undefined_{i}" for i, key in enumerate(conditions)}
    wide = (
        _joined(tables, computed)
        .group_by(*tables.keys, maintain_order=True)
        .agg(
            *(_scalar(metric).alias(metric.name) for metric in computed),
            *(condition.alias(flags[key]) for key, condition in conditions.items()),
        )
    )
    values = []
    for metric in computed:
        value = pl.col(metric.name).cast(pl.Float64).fill_nan(None)
        if not metric.may_be_infinite:
            value = pl.when(value.is_finite()).then(value)
        is_undefined = [pl.col(flags[id(condition)]).fill_null(value=False) for condition, _ in metric.undefined]
        if is_undefined:
            value = pl.when(~pl.any_horizontal(is_undefined)).then(value)
        values.append(value.alias(metric.name))
    return wide.with_columns(values), computed, flags


def _joined(tables: MetricTables, metrics: Sequence[Metric]) -> pl.DataFrame:
    """Put the columns of the layer that are needed beside those of its experts."""
    expressions = [metric.value for metric in metrics if metric.value is not None]
    expressions += [condition for metric in metrics for condition, _ in metric.undefined]
    needed = {name for expression in expressions for name in expression.meta.root_names()}
    own = set(tables.experts.columns)
    of_layer = [name for name in tables.layers.columns if name in needed - own]
    experts = tables.experts.select(*tables.keys, *(name for name in tables.experts.columns if name not in tables.keys))
    return experts.join(
        tables.layers.select(*tables.keys, *of_layer), on=tables.keys, how="left", maintain_order="left"
    )


def _scalar(metric: Metric) -> pl.Expr:
    assert metric.value is not None  # noqa: S101 (for the type checker)
    return metric.value.sum() if metric.level == "list" else metric.value


def _reasons_of_layers(metric: Metric, tables: MetricTables) -> list[pl.Expr]:
    """Give the reasons that single layers have for lacking what a metric needs."""
    return [pl.col(f"no_{need}") for need in metric.needs if f"no_{need}" in tables.layers.columns]

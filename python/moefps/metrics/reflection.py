"""Basic bootstrap intervals: percentiles of resamples, reflected at the value, for what noise pushes one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from moefps.metrics.families.expressions import BOUNDS

if TYPE_CHECKING:
    from moefps.metrics.metric import Metric

__all__ = ["interval_facts", "reflect"]

_FACTS: dict[str, type[pl.DataType]] = {
    "metric": pl.String,
    "value": pl.Float64,
    "kind": pl.String,
    "sign": pl.Float64,
    "balanced": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def interval_facts(layers: pl.DataFrame, values: pl.DataFrame, metrics: Sequence[Metric]) -> pl.DataFrame:
    """Say what the intervals of each metric and layer are made with.

    Parameters
    ----------
    layers : polars.DataFrame
        The table of layers of all units together.
    values : polars.DataFrame
        A row a layer: ``layer``, and a column for each metric.
    metrics : sequence of Metric
        Which; those without a column in `values` are left out.

    Returns
    -------
    polars.DataFrame
        A row a layer and metric: ``layer``, ``metric``, ``value``, ``kind``, ``sign`` (-1 where noise pushes down),
        ``balanced``, and ``low`` and ``high``, the ends of the range, null where there are none.
    """
    wide = layers.join(values, on="layer", how="left", maintain_order="left", suffix="_of_metric")
    parts = []
    for metric in metrics:
        if metric.name not in values.columns:
            continue
        name = metric.name if metric.name not in layers.columns else f"{metric.name}_of_metric"
        balanced = metric.balanced if isinstance(metric.balanced, pl.Expr) else pl.lit(metric.balanced)
        nothing = pl.lit(None, dtype=pl.Float64)
        facts = wide.select(
            "layer",
            metric=pl.lit(metric.name),
            value=pl.col(name),
            kind=pl.lit(metric.interval),
            sign=pl.lit(-1.0 if metric.better == "up" else 1.0),
            balanced=balanced,
            low=BOUNDS.get(metric.low, nothing),
            high=BOUNDS.get(metric.high, nothing),
        )
        parts.append(facts.with_columns(pl.col(name).cast(kind) for name, kind in _FACTS.items()))
    empty = layers.clear().select("layer", **{name: pl.lit(None, dtype=kind) for name, kind in _FACTS.items()})
    return pl.concat([empty, *parts])


def reflect(found: pl.DataFrame, facts: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Turn percentiles into the intervals that each metric is to have.

    The basic interval of a value v with percentiles lo and hi is 2v - hi to 2v - lo: what resampling adds to v, v has
    in it already. Distances from balance add up in squares, so that it is their squares that are reflected.

    Parameters
    ----------
    found : polars.DataFrame
        ``metric``, ``lo``, ``hi``, and `keys`.
    facts : polars.DataFrame
        As `interval_facts` gives them, a row for each of `found`.
    keys : sequence of str
        ``layer``, or none.

    Returns
    -------
    polars.DataFrame
        Of the form of `found`. Intervals stay in the range of the metric, or go as far as the value where that is
        outside.

    Examples
    --------
    >>> found = pl.DataFrame({"metric": ["cv"], "lo": [0.5], "hi": [0.7]})
    >>> facts = pl.DataFrame({"metric": ["cv"], "value": [0.4], "kind": ["basic"], "sign": [1.0], "balanced": [0.0]})
    >>> facts = facts.with_columns(low=pl.lit(0.0), high=pl.lit(None, dtype=pl.Float64))
    >>> reflect(found, facts, []).select(pl.col("lo", "hi").round(6)).row(0)
    (0.1, 0.3)
    """
    joined = found.join(facts, on=[*keys, "metric"], how="left", maintain_order="left")
    lo, hi, value, balanced = (pl.col(name) for name in ("lo", "hi", "value", "balanced"))
    one, other = ((end - balanced) ** 2 for end in (lo, hi))
    twice = 2 * (value - balanced) ** 2
    nearer = balanced + pl.col("sign") * (twice - pl.max_horizontal(one, other)).clip(lower_bound=0).sqrt()
    farther = balanced + pl.col("sign") * (twice - pl.min_horizontal(one, other)).clip(lower_bound=0).sqrt()
    low, high = pl.min_horizontal("low", "value"), pl.max_horizontal("high", "value")
    ends = {}
    for name, basic, squared in (
        ("lo", 2 * value - hi, pl.min_horizontal(nearer, farther)),
        ("hi", 2 * value - lo, pl.max_horizontal(nearer, farther)),
    ):
        end = pl.when(pl.col("kind") == "basic").then(basic).otherwise(squared)
        # An end that the range does not have is no bound.
        end = pl.when(pl.col("low").is_null()).then(end).otherwise(pl.max_horizontal(end, low))
        end = pl.when(pl.col("high").is_null()).then(end).otherwise(pl.min_horizontal(end, high))
        ends[name] = (
            pl.when((pl.col("kind") == "percentile") | pl.col(name).is_null()).then(pl.col(name)).otherwise(end)
        )
    return joined.with_columns(**ends).select(found.columns)

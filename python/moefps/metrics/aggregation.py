"""From the values of layers to a few numbers over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PERCENTILES", "aggregate_layers"]

PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles over layers, by linear interpolation."""


def aggregate_layers(layers: pl.DataFrame, outer: Sequence[str] = ()) -> pl.DataFrame:
    """Aggregate values over layers; layers without a value are left out and counted.

    Parameters
    ----------
    layers : polars.DataFrame
        A row a layer and metric: ``metric``, ``value``, ``chance``, ``target``, ``threshold``, ``met``, ``reason``,
        and the columns `outer`.
    outer : sequence of str
        What stays apart, such as ``group``.

    Returns
    -------
    polars.DataFrame
        A row a metric, in the order of their first rows: `outer`, ``metric``, ``n_layers`` (with a value),
        ``n_null`` (without), ``mean``, ``min``, ``max``, ``std`` (ddof=1), ``p5`` to ``p95``, ``chance`` and
        ``threshold`` (means over the layers with a value), ``target``, ``n_missed`` (layers that miss it; null without
        a target), ``reason`` (the first one, where no layer has a value).

    Examples
    --------
    >>> import polars as pl
    >>> layers = pl.DataFrame({"metric": ["a"] * 3, "value": [1.0, None, 2.0], "reason": [None, "no token", None]})
    >>> empty = dict.fromkeys(("chance", "threshold"), pl.lit(None, dtype=pl.Float64))
    >>> layers = layers.with_columns(**empty, target=pl.lit(None, dtype=pl.String), met=pl.lit(None, dtype=pl.Boolean))
    >>> aggregate_layers(layers).select("metric", "n_layers", "n_null", "mean", "p5").row(0)
    ('a', 2, 1, 1.5, 1.05)
    """
    value, has_value = pl.col("value"), pl.col("value").is_not_null()
    summary = layers.group_by(*outer, "metric", maintain_order=True).agg(
        has_value.sum().cast(pl.Int64).alias("n_layers"),
        value.is_null().sum().cast(pl.Int64).alias("n_null"),
        value.mean().alias("mean"),
        value.min().alias("min"),
        value.max().alias("max"),
        value.std().alias("std"),
        *(value.quantile(p / 100, interpolation="linear").alias(f"p{p}") for p in PERCENTILES),
        pl.col("chance").filter(has_value).mean().alias("chance"),
        pl.col("threshold").filter(has_value).mean().alias("threshold"),
        pl.col("target").drop_nulls().first().alias("target"),
        pl.when(pl.col("target").is_not_null().any())
        .then(pl.col("met").not_().sum().cast(pl.Int64))
        .otherwise(None)
        .alias("n_missed"),
        pl.when(has_value.any()).then(None).otherwise(pl.col("reason").drop_nulls().first()).alias("reason"),
    )
    # Where a value is infinite, what is left of a spread is no number.
    return summary.with_columns(pl.col(pl.Float64).fill_nan(None))

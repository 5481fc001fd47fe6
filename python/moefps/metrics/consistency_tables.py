"""The tables of routing consistency: by layer, over layers, by sample, with bootstrap intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from moefps.metrics.aggregation import PERCENTILES, aggregate_layers
from moefps.metrics.consistency_measures import MEASURES, METRICS, chance_of, mean_over_layers, ratios

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array
    from moefps.metrics.consistency_reading import DumpPair, SampleMeans, UnitSums
    from moefps.metrics.resampling import Resampling

__all__ = ["Intervals", "find_intervals", "layer_table", "sample_table", "summary_table"]

_DRAWS_AT_A_TIME = 1 << 22

_NO_PAIR = "no token has a filled slot in both dumps"
_NO_SHARES = "no token has shares in both dumps: its weights sum to 0, or one of them is negative"
_ONE_SAMPLE = "one sample: there is nothing to resample"
_NO_RESAMPLE = "not defined in any resample"

_SCHEMA: dict[str, Any] = {
    "_group": pl.Int64,
    "layer": pl.Int64,
    "metric": pl.String,
    "value": pl.Float64,
    "tokens": pl.Int64,
    "lo": pl.Float64,
    "hi": pl.Float64,
    "reason": pl.String,
    "reason_ci": pl.String,
    "chance": pl.Float64,
    "target": pl.String,
    "threshold": pl.Float64,
}


class Intervals(NamedTuple):
    """Ends of intervals of each group, NaN where there are none."""

    layers: Float64Array  # [G, 2, L, M]
    means: Float64Array  # [G, 2, M]
    reasons: list[str | None]  # [G]: why a value has none; None where intervals were not asked for


def find_intervals(sums: UnitSums, how: Resampling | None) -> Intervals:
    """Resample the units of each group with replacement, and give percentiles."""
    n_layers, n_measures = sums.values.shape[1:]
    layers = np.full((sums.n_groups, 2, n_layers, n_measures), np.nan)
    means = np.full((sums.n_groups, 2, n_measures), np.nan)
    if how is None:
        return Intervals(layers, means, [None] * sums.n_groups)
    reasons: list[str | None] = []
    ends = [(1 - how.level) / 2, (1 + how.level) / 2]
    for group in range(sums.n_groups):
        values, counts = sums.of_group(group)
        reasons.append(_ONE_SAMPLE if len(values) < 2 else _NO_RESAMPLE)
        if len(values) >= 2:
            resampled = _resample(values, counts, how)
            layers[group] = _quantiles(resampled, ends)
            means[group] = _quantiles(mean_over_layers(resampled), ends)
    return Intervals(layers, means, reasons)


def _resample(values: Float64Array, counts: Float64Array, how: Resampling) -> Float64Array:
    """Draw units, [R, L, M]: what is drawn is added up, so that no token is read again."""
    n_units, n_layers, n_measures = values.shape
    rng = np.random.default_rng(how.seed)
    chances = np.full(n_units, 1.0 / n_units)
    flat = [array.reshape(n_units, -1) for array in (values, counts)]
    parts = []
    size = max(1, _DRAWS_AT_A_TIME // n_units)
    for first in range(0, how.n_resamples, size):
        n_rows = min(size, how.n_resamples - first)
        drawn = rng.multinomial(n_units, chances, size=n_rows).astype(np.float64)
        parts.append(ratios(drawn @ flat[0], drawn @ flat[1]).reshape(n_rows, n_layers, n_measures))
    return np.concatenate(parts)


def _quantiles(resampled: Float64Array, ends: list[float]) -> Float64Array:
    """Give the ends by linear interpolation; resamples without a value are left out."""
    empty = np.isnan(resampled)
    if not empty.any():
        return np.quantile(resampled, ends, axis=0)
    nowhere = empty.all(axis=0)
    found: Float64Array = np.nanquantile(np.where(nowhere, 0.0, resampled), ends, axis=0)
    return np.where(nowhere, np.nan, found)


def layer_table(pair: DumpPair, sums: UnitSums, intervals: Intervals) -> pl.DataFrame:
    """Lay out the values of each group, layer and metric."""
    rows = []
    for group in range(sums.n_groups):
        values, counts = (array.sum(axis=0) for array in sums.of_group(group))
        found = ratios(values, counts)
        for place, info in enumerate(pair.infos):
            for measure in MEASURES:
                metric = measure.metric
                row = {"_group": group, "layer": info.index, "metric": metric.name}
                row["chance"] = chance_of(metric.name, info.n_experts - info.passive_experts, info.top_k)
                if metric.target is not None:
                    row |= {"target": metric.target.text, "threshold": metric.target.value}
                if measure in sums.measures:
                    m = sums.measures.index(measure)
                    row |= {"value": found[place, m], "tokens": int(counts[place, m])}
                    row |= zip(("lo", "hi"), intervals.layers[group, :, place, m].tolist(), strict=True)
                    row["reason"] = _NO_SHARES if measure.of_shares and counts[place, 0] else _NO_PAIR
                else:
                    row |= {"tokens": 0, "reason": pair.missing}
                row["reason_ci"] = intervals.reasons[group]
                rows.append(row)
    frame = _with_reasons(pl.DataFrame(rows, schema=_SCHEMA), "value")
    names = ("layer", "metric", "value", "reason", "chance", "target", "threshold", "met", "tokens")
    return _of_groups(frame, pair).select(*_keys(pair), *names, "lo", "hi", "reason_ci")


def _with_reasons(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    """Keep reasons where something is missing only, and hold values against their targets."""
    frame = frame.with_columns(pl.col(value, "lo", "hi").fill_nan(None))
    is_null, has_ends = pl.col(value).is_null(), pl.col("lo").is_not_null()
    why = pl.when(is_null & pl.col("reason_ci").is_not_null()).then(pl.lit("there is no value")).otherwise("reason_ci")
    return frame.with_columns(
        # The one target there is, routing_consistency's, is a lower bound.
        met=pl.col(value) > pl.col("threshold"),
        reason=pl.when(is_null).then("reason"),
        reason_ci=pl.when(~has_ends).then(why),
    )


def _of_groups(frame: pl.DataFrame, pair: DumpPair) -> pl.DataFrame:
    if pair.groups is None:
        return frame
    return frame.with_columns(pair.groups.values[frame["_group"].to_numpy()].alias("group"))


def _keys(pair: DumpPair) -> list[str]:
    return [] if pair.groups is None else ["group"]


def summary_table(pair: DumpPair, layers: pl.DataFrame, sums: UnitSums, intervals: Intervals) -> pl.DataFrame:
    """Aggregate over layers, and bound the means."""
    frame = aggregate_layers(layers, _keys(pair))
    ends = []
    for group in range(sums.n_groups):
        for measure in MEASURES:
            there = measure in sums.measures
            lo, hi = intervals.means[group, :, sums.measures.index(measure)] if there else (np.nan, np.nan)
            ends.append((float(lo), float(hi), intervals.reasons[group], measure.metric.better))
    # The rows of both are group by group, metric by metric.
    schema = {"lo": pl.Float64, "hi": pl.Float64, "reason_ci": pl.String, "better": pl.String}
    frame = frame.hstack(pl.DataFrame(ends, schema=schema, orient="row"))
    return _with_reasons(frame, "mean").select(
        *_keys(pair),
        *("metric", "n_layers", "n_null", "mean", "min", "max", "std"),
        *(f"p{p}" for p in PERCENTILES),
        *("better", "chance", "target", "threshold", "met", "n_missed", "reason", "lo", "hi", "reason_ci"),
    )


def sample_table(pair: DumpPair, found: SampleMeans) -> pl.DataFrame:
    """Lay out the means over layers of each sample, beside the samples' own columns."""
    means: dict[str, npt.NDArray[Any] | None] = dict.fromkeys(metric.name for metric in METRICS)
    means |= {measure.metric.name: found.means[:, m] for m, measure in enumerate(pair.measures)}
    order = np.lexsort((found.sample, found.group))
    columns = [
        pl.Series(name, [None] * len(order) if column is None else column[order], dtype=pl.Float64).fill_nan(None)
        for name, column in means.items()
    ]
    frame = pl.DataFrame([pl.Series("_group", found.group[order]), pl.Series("sample", found.sample[order]), *columns])
    frame = _of_groups(frame, pair)
    own = pair.a.samples.drop("token_start")
    taken = {"group", *means} & set(own.columns)
    own = own.rename({name: f"sample_{name}" for name in taken})
    joined = frame.join(own, on="sample", how="left", maintain_order="left")
    return joined.select(*_keys(pair), "sample", *means, pl.exclude("_group", "group", "sample", *means))

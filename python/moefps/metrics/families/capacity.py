"""Capacity: what a layer of fixed capacity an expert would have to hold, and would drop."""

from __future__ import annotations

import polars as pl

from moefps.metrics.families.expressions import NO_TOKEN, A, E, c, layer, m
from moefps.metrics.families.load import CHECKLIST
from moefps.metrics.metric import Metric

__all__ = ["METRICS"]

_FACTOR = layer("capacity_factor")
_IDEAL = _FACTOR * A / E
# A product such as 1.2 · 5 lands a hair above a whole number, and is not rounded up to the next.
_CAPACITY = (_IDEAL - 1e-9).ceil()

METRICS: tuple[Metric, ...] = (
    Metric(
        name="capacity_factor",
        family="capacity",
        formula="cf, as it was given",
        low="0",
        source=CHECKLIST,
        example="as given = 1.25",
        value=_FACTOR,
        no_interval="it is given, not measured",
    ),
    Metric(
        name="ideal_capacity_per_expert",
        family="capacity",
        formula="cf · A / E (the checklist's c·T/E, its T being assignments)",
        low="0",
        needs=("trace",),
        source=CHECKLIST,
        example="1.25 · 8/4 = 2.5",
        value=_IDEAL,
        unit="slots",
    ),
    Metric(
        name="capacity_usage",
        family="capacity",
        formula="max c / ideal_capacity_per_expert",
        low="1/cf",
        high="E/(k cf)",
        better="down",
        source=CHECKLIST,
        example="4/2.5 = 1.6",
        value=c.max() / _IDEAL,
        undefined=(NO_TOKEN,),
        interval="basic of squares",
        balanced=1 / pl.col("capacity_factor"),
    ),
    Metric(
        name="capacity_utilization",
        family="capacity",
        formula="m / ideal_capacity_per_expert = 1 / cf",
        low="0",
        source=CHECKLIST,
        example="2/2.5 = 0.8",
        value=m / _IDEAL,
        undefined=(NO_TOKEN,),
    ),
    Metric(
        name="dropped_fraction",
        family="capacity",
        formula="Σ_e max(0, c_e - ⌈ideal_capacity_per_expert - 1e-9⌉) / A: what a fixed-capacity layer would drop",
        low="0",
        high="1",
        better="down",
        needs=("trace",),
        source=CHECKLIST,
        example="⌈2.5⌉ = 3: (4 - 3)/8 = 0.125",
        value=(c - _CAPACITY).clip(lower_bound=0).sum() / A,
        undefined=(NO_TOKEN,),
        interval="basic",
    ),
)

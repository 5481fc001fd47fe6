"""What is said of two dumps of the same tokens: definitions, and the values under chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moefps.metrics.metric import Metric, Target
from moefps.metrics.tables import hypergeometric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps._typing import Float64Array
    from moefps.kernels import ChoiceSums

__all__ = ["MEASURES", "METRICS", "Measure", "chance_of", "mean_over_layers", "numerators", "ratios"]

_OLMOE = "OLMoE, arXiv 2409.02060, router saturation"


class Measure(NamedTuple):
    """How a metric is computed: a sum over pairs of tokens, by how many there are."""

    metric: Metric
    sums: str
    of_shares: bool = False
    by_slots: bool = False


def _metric(name: str, formula: str, **facts: Any) -> Metric:
    needs = ("trace", "second trace", *facts.pop("needs", ()))
    return Metric(name=name, family="consistency", formula=formula, low="0", high="1", needs=needs, **facts)


MEASURES = (
    Measure(
        _metric(
            "routing_consistency",
            "mean |s_A[t] ∩ s_B[t]| / k",
            better="up",
            chance="k/E",
            target=Target(text="> 0.85", op=">", value=0.85),
            source=_OLMOE,
            example="{0, 1} and {0, 2}: 1 of 2 slots = 0.5",
        ),
        "common_experts",
        by_slots=True,
    ),
    Measure(
        _metric(
            "exact_match",
            "P(s_A[t] = s_B[t]), as sets",
            better="up",
            chance="1/C(E,k)",
            source="moefps",
            example="{0, 1} and {1, 0}, {0, 1} and {0, 2}: 1 of 2 tokens = 0.5",
        ),
        "equal_sets",
    ),
    Measure(
        _metric(
            "top1_match",
            "P(the expert of rank 1 of s_A[t] = that of s_B[t])",
            needs=("weights",),
            better="up",
            chance="1/E",
            source="moefps",
            example="weights 0.7, 0.3 and 0.4, 0.6 of experts 0, 1: rank 1 is 0 and 1 = 0",
        ),
        "pairs_of_same_first",
    ),
    Measure(
        _metric(
            "jaccard",
            "mean |s_A[t] ∩ s_B[t]| / |s_A[t] ∪ s_B[t]|",  # noqa: RUF001 (the sign of a union)
            better="up",
            chance="Σ_o h(o)·o/(2k-o), h hypergeometric",
            source="moefps",
            example="{0, 1} and {0, 2}: 1 of 3 experts = 0.3333",
        ),
        "jaccard_sums",
    ),
    Measure(
        _metric(
            "tv",
            "mean ½ Σ_e |ŵ_A[t,e] - ŵ_B[t,e]|",
            needs=("weights",),
            better="down",
            source="moefps",
            example="0.7, 0.3 and 0.4, 0.6: ½ (0.3 + 0.3) = 0.3",
        ),
        "tv_sums",
        of_shares=True,
    ),
    Measure(
        _metric(
            "js",
            "mean Jensen-Shannon divergence of ŵ_A[t] and ŵ_B[t], base 2",
            needs=("weights",),
            better="down",
            source="moefps",
            example="experts 0 and 1 with 1 each: 1",
        ),
        "js_sums",
        of_shares=True,
    ),
)

METRICS: tuple[Metric, ...] = tuple(measure.metric for measure in MEASURES)
"""What is said of two dumps, the one with a target first."""


def numerators(sums: ChoiceSums, measures: Sequence[Measure]) -> tuple[Float64Array, Float64Array]:
    """Give what the means are made of, [G, L, M]: sums, and the tokens that they are over."""
    shared = sums.pairs if sums.pairs_with_shares is None else sums.pairs_with_shares
    values, counts = [], []
    for measure in measures:
        value: Float64Array = getattr(sums, measure.sums).astype(np.float64)
        values.append(value / np.maximum(sums.top_k, 1) if measure.by_slots else value)
        counts.append(shared if measure.of_shares else sums.pairs)
    return np.stack(values, axis=-1), np.stack(counts, axis=-1).astype(np.float64)


def ratios(values: Float64Array, counts: Float64Array) -> Float64Array:
    """Divide; NaN where there is nothing to divide by."""
    found = np.full(values.shape, np.nan)
    np.divide(values, counts, out=found, where=counts > 0)
    return found


def mean_over_layers(found: Float64Array) -> Float64Array:
    """Give [.., M] of [.., L, M]; NaN where no layer has a value."""
    there = ~np.isnan(found)
    return ratios(np.where(there, found, 0.0).sum(axis=-2), there.sum(axis=-2).astype(np.float64))


def chance_of(name: str, n_experts: int, top_k: int) -> float | None:
    """Give the value of two independent uniform choices of k of E experts."""
    if not 1 <= top_k <= n_experts:
        return None
    found = {
        "routing_consistency": top_k / n_experts,
        "exact_match": 1 / math.comb(n_experts, top_k),
        "top1_match": 1 / n_experts,
        "jaccard": hypergeometric(n_experts, top_k)[1],
    }
    return found.get(name)

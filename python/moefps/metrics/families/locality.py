"""Consistency and locality: how alike the choices of neighbouring tokens are.

Neighbours are rows of one sample and stack whose position differs by 1: never across the end of a sequence.
"""

from __future__ import annotations

import polars as pl

from moefps.metrics.families.expressions import NO_PAIR, K, layer
from moefps.metrics.families.load import CHECKLIST
from moefps.metrics.metric import Metric, Target

__all__ = ["METRICS"]

MIXTRAL = "Mixtral, arXiv 2401.04088, table 5"

_PAIRS = layer("pairs")
_SHARED = _PAIRS - layer("pairs_without_shares")

METRICS: tuple[Metric, ...] = (
    Metric(
        name="sequential_routing_consistency",
        family="locality",
        formula="P(the expert of rank 1 of t = that of t+1)",
        low="0",
        high="1",
        needs=("trace", "neighbours", "weights"),
        chance="1/E",
        chance_value=1 / pl.col("n_experts"),
        target=Target(text="> 0.45", op=">", value=0.45),
        source=f"{MIXTRAL}, first choice",
        example="rank 1 is expert 0, 0 (a tie goes to the lowest slot), 0, 2: 2 of 3 pairs = 0.6667",
        value=layer("pairs_of_same_first") / _PAIRS,
        undefined=(NO_PAIR,),
    ),
    Metric(
        name="expert_reuse_rate",
        family="locality",
        formula="P(s[t] ∩ s[t+1] ≠ ∅)",
        low="0",
        high="1",
        needs=("trace", "neighbours"),
        chance="1 - C(E-k,k)/C(E,k)",
        chance_value=pl.col("chance_any_common"),
        source=f'{MIXTRAL}, "first or second choice"',
        example="expert 0 is in all sets: 3 of 3 pairs = 1",
        value=layer("pairs_with_common") / _PAIRS,
        undefined=(NO_PAIR,),
    ),
    Metric(
        name="top_k_overlap",
        family="locality",
        formula="mean |s[t] ∩ s[t+1]| / k",
        low="0",
        high="1",
        needs=("trace", "neighbours"),
        chance="k/E",
        chance_value=pl.when(pl.col("top_k") <= pl.col("n_experts")).then(pl.col("top_k") / pl.col("n_experts")),
        source=CHECKLIST,
        example="one expert of two in each pair: 1/2 = 0.5",
        value=layer("common_experts") / (_PAIRS * K),
        undefined=(NO_PAIR,),
    ),
    Metric(
        name="top_k_jaccard",
        family="locality",
        formula="mean |s[t] ∩ s[t+1]| / |s[t] ∪ s[t+1]|",  # noqa: RUF001 (the sign of a union)
        low="0",
        high="1",
        needs=("trace", "neighbours"),
        chance="Σ_o h(o)·o/(2k-o), h hypergeometric",
        chance_value=pl.col("chance_jaccard"),
        source="moefps",
        example="one expert of three in each pair: 1/3 = 0.3333",
        value=layer("jaccard_sum") / _PAIRS,
        undefined=(NO_PAIR,),
    ),
    Metric(
        name="routing_locality",
        family="locality",
        formula="mean 1 - TV(ŵ[t], ŵ[t+1]), the weights of the top k as distributions over experts",
        low="0",
        high="1",
        needs=("trace", "neighbours", "weights"),
        source=CHECKLIST,
        example="TV = 0.5, 0.5, 0.75: (0.5 + 0.5 + 0.25)/3 = 0.4167",
        value=layer("locality_sum") / _SHARED,
        undefined=(NO_PAIR, (_SHARED == 0, "no two neighbouring tokens have weights with shares")),
    ),
)

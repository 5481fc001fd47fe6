"""Specialisation and overlap: whether experts take different tokens, and tokens of different domains."""

from __future__ import annotations

import polars as pl

from moefps.metrics.families.expressions import layer
from moefps.metrics.families.load import CHECKLIST
from moefps.metrics.metric import Metric, Target

__all__ = ["METRICS"]

OLMOE = "OLMoE, arXiv 2409.02060"

_JACCARD = "Jaccard index of the experts' token sets over the pairs i < j of used experts"
_J0 = (pl.col("top_k") - 1) / (2 * pl.col("n_experts") - pl.col("top_k") - 1)
_CHOICE = pl.when(pl.col("top_k") <= pl.col("n_experts"))
_NO_PAIR = (layer("overlap_pairs") == 0, "fewer than two experts are used")

METRICS: tuple[Metric, ...] = (
    Metric(
        name="expert_overlap",
        family="specialisation",
        formula=f"mean {_JACCARD}",
        low="0",
        high="1",
        better="down",
        needs=("trace", "pairs"),
        chance="J0 = (k-1) / (2E-k-1)",
        chance_value=_CHOICE.then(_J0),
        target=Target(text="< 0.15", op="<", value=0.15),
        source=CHECKLIST,
        example="Jaccard of experts 0 and 1: 2/4, of 0 and 2: 2/4, of 1 and 2: 0/4; mean = 0.3333",
        aliases=("expert_overlap_mean",),
        value=layer("overlap_mean"),
        undefined=(_NO_PAIR,),
        interval="basic",
    ),
    Metric(
        name="expert_overlap_std",
        family="specialisation",
        formula=f"std (ddof=1) of the {_JACCARD}",
        low="0",
        high="1",
        better="down",
        needs=("trace", "pairs"),
        source=CHECKLIST,
        example="of 0.5, 0.5, 0: √((1/36 + 1/36 + 1/9)/2) = 0.2887",
        value=layer("overlap_std"),
        undefined=(_NO_PAIR, (layer("overlap_pairs") == 1, "only one pair of experts is used")),
        interval="basic of squares",
    ),
    Metric(
        name="expert_overlap_max",
        family="specialisation",
        formula=f"largest {_JACCARD}",
        low="0",
        high="1",
        better="down",
        needs=("trace", "pairs"),
        source=CHECKLIST,
        example="of 0.5, 0.5, 0 = 0.5",
        value=layer("overlap_max"),
        undefined=(_NO_PAIR,),
        interval="basic",
    ),
    Metric(
        name="coactivation",
        family="specialisation",
        formula="N_ij / N_i, all ordered pairs i ≠ j: of the tokens that chose i, the share that chose j too",
        low="0",
        high="1",
        needs=("trace", "pairs"),
        chance="(k-1)/(E-1)",
        chance_value=_CHOICE.then((pl.col("top_k") - 1) / (pl.col("n_experts") - 1)),
        source=f"{OLMOE} (here of all pairs, not of adjacent ranks)",
        example="of expert 0 with expert 1: both in 2 of its 4 tokens: 2/4 = 0.5",
        level="pair",
    ),
    Metric(
        name="domain_specialization",
        family="specialisation",
        formula="N_{e,D} / N_D: the share of domain D's tokens that choose e",
        low="0",
        high="1",
        needs=("trace", "domains"),
        chance="k/E",
        chance_value=_CHOICE.then(pl.col("top_k") / pl.col("n_experts")),
        source=OLMOE,
        example="of expert 1 in code: both of its 2 tokens: 2/2 = 1",
        level="domain",
    ),
    Metric(
        name="domain_purity",
        family="specialisation",
        formula="max_D N_{e,D} / N_e",
        low="1/D",
        high="1",
        needs=("trace", "domains"),
        source="moefps",
        example="of expert 0: 2 tokens of code and 2 of law: 2/4 = 0.5",
        level="domain",
    ),
    Metric(
        name="domain_affinity",
        family="specialisation",
        formula="P(e|D) / P(e), P(e|D) = N_{e,D} / N_D, P(e) = N_e / T",
        low="0",
        needs=("trace", "domains"),
        chance="1",
        source="moefps",
        example="of expert 1 to code: P(1|code) = 2/2, P(1) = 2/4: 1/0.5 = 2",
        level="domain",
    ),
)

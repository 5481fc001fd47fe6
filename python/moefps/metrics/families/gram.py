"""Gram: how much alike the vectors are with which a router compares tokens, and the experts' outputs.

The values are computed from the vectors, in `moefps.metrics.vectors`, and are columns of the table of layers here.
"""

from __future__ import annotations

from moefps.metrics.families.expressions import ONE_EXPERT, layer
from moefps.metrics.families.load import CHECKLIST
from moefps.metrics.metric import Metric, Target
from moefps.metrics.vectors import ONE_SET

__all__ = ["METRICS"]

_COSINES = "cosines of the router's expert vectors, over the ordered pairs i ≠ j"
_VECTORS = "vectors (1, 0), (0, 1), (3, 4)"
_PAIRS = f"{_VECTORS} have cosines 0, 0.6, 0.8, each in two orders"
_G = "G the Gram matrix of the expert vectors at length 1"

METRICS: tuple[Metric, ...] = (
    Metric(
        name="expert_similarity_mean",
        family="gram",
        formula=f"mean of the {_COSINES}",
        low="-1/(E-1)",
        high="1",
        better="down",
        needs=("vectors",),
        source=CHECKLIST,
        example=f"{_PAIRS}: 2 (0 + 0.6 + 0.8) / 6 = 0.4667",
        value=layer("expert_similarity_mean"),
        undefined=(ONE_EXPERT,),
    ),
    Metric(
        name="expert_similarity_std",
        family="gram",
        formula=f"std (ddof=1) of the {_COSINES}",
        low="0",
        needs=("vectors",),
        source=CHECKLIST,
        example=f"{_PAIRS}, mean 0.4667: √(2 (0.2178 + 0.0178 + 0.1111) / 5) = 0.3724",
        value=layer("expert_similarity_std"),
        undefined=(ONE_EXPERT,),
    ),
    Metric(
        name="expert_diversity_score",
        family="gram",
        formula="1 - expert_similarity_mean",
        low="0",
        high="E/(E-1)",
        better="up",
        needs=("vectors",),
        source=CHECKLIST,
        example=f"{_PAIRS}: 1 - 0.4667 = 0.5333",
        value=layer("expert_diversity_score"),
        undefined=(ONE_EXPERT,),
    ),
    Metric(
        name="expert_specialization_strength",
        family="gram",
        formula=f"variance (ddof=1) of the {_COSINES}",
        low="0",
        better="up",
        needs=("vectors",),
        source=CHECKLIST,
        example=f"{_PAIRS}, mean 0.4667: 2 (0.2178 + 0.0178 + 0.1111) / 5 = 0.1387",
        value=layer("expert_specialization_strength"),
        undefined=(ONE_EXPERT,),
    ),
    Metric(
        name="gram_matrix_orthogonality",
        family="gram",
        formula=f"1 - ‖G - I‖_F / √(E(E-1)), {_G}: 1 orthogonal, 0 all parallel",
        low="0",
        high="1",
        better="up",
        needs=("vectors",),
        target=Target(text="> 0.90", op=">", value=0.90),
        source=CHECKLIST,
        example=f"{_PAIRS}: 1 - √(2 (0 + 0.36 + 0.64)) / √6 = 0.4226",
        value=layer("gram_matrix_orthogonality"),
        undefined=(ONE_EXPERT,),
    ),
    Metric(
        name="gram_diagonal_quality",
        family="gram",
        formula=f"mean of the diagonal of G, {_G}: 1 unless a vector is zero",
        low="0",
        high="1",
        better="up",
        needs=("vectors",),
        source=CHECKLIST,
        example="vectors (1, 0), (0, 1), (3, 4), (0, 0): (1 + 1 + 1 + 0) / 4 = 0.75",
        value=layer("gram_diagonal_quality"),
    ),
    Metric(
        name="gram_off_diagonal_sparsity",
        family="gram",
        formula=f"1 - mean of |G_ij| over i ≠ j, {_G}",
        low="0",
        high="1",
        better="up",
        needs=("vectors",),
        source=CHECKLIST,
        example=f"{_PAIRS}: 1 - 2 (0 + 0.6 + 0.8) / 6 = 0.5333",
        value=layer("gram_off_diagonal_sparsity"),
        undefined=(ONE_EXPERT,),
    ),
    Metric(
        name="gram_condition_number",
        family="gram",
        formula=f"largest / smallest eigenvalue of G, {_G}; infinite if the smallest is ≤ 1e-8",
        low="1",
        better="down",
        needs=("vectors",),
        source=CHECKLIST,
        example="vectors (1, 0), (3, 4) have the cosine 0.6, G the eigenvalues 1.6 and 0.4: 1.6 / 0.4 = 4",
        value=layer("gram_condition_number"),
        may_be_infinite=True,
    ),
    Metric(
        name="gram_frobenius_norm",
        family="gram",
        formula=f"‖G‖_F, {_G}",
        low="√E",
        high="E",
        better="down",
        needs=("vectors",),
        source=CHECKLIST,
        example=f"{_PAIRS}: √(3 + 2 (0 + 0.36 + 0.64)) = 2.2361",
        value=layer("gram_frobenius_norm"),
    ),
    Metric(
        name="expert_output_diversity",
        family="gram",
        formula="1 - mean cosine of the experts' mean outputs, over the ordered pairs i ≠ j",
        low="0",
        high="2",
        better="up",
        needs=("outputs",),
        source=CHECKLIST,
        example="mean outputs (1, 0), (0, 1), (3, 4) have cosines 0, 0.6, 0.8: 1 - 2 (0 + 0.6 + 0.8) / 6 = 0.5333",
        value=layer("expert_output_diversity"),
        undefined=(ONE_EXPERT,),
    ),
    Metric(
        name="expert_routing_expression_alignment",
        family="gram",
        formula="mean over e of the cosine between the router's vector of e and a second, aligned set's",
        low="-1",
        high="1",
        better="up",
        needs=("vectors",),
        source=CHECKLIST,
        example="vectors (1, 0), (0, 1), (3, 4) with (1, 0), (0, -1), (4, 3): (1 - 1 + 0.96) / 3 = 0.32",
        value=layer("expert_routing_expression_alignment"),
        undefined=((layer("expert_routing_expression_alignment").is_null(), ONE_SET),),
    ),
)

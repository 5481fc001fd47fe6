"""Confidence: how sure the router is of what it chooses."""

from __future__ import annotations

from moefps.metrics.families.expressions import NO_PROBS, NO_TOKEN, ONE_EXPERT, E, K, layer, mean_weight
from moefps.metrics.families.load import CHECKLIST
from moefps.metrics.metric import Metric

__all__ = ["METRICS"]

_ENTROPY = layer("p_entropy_sum") / layer("logit_tokens")
_TOP_K_ENTROPY = layer("entropy_sum") / layer("entropy_tokens")
_NO_ENTROPY = (layer("entropy_tokens") == 0, "no token has two or more filled slots with weights that have shares")

METRICS: tuple[Metric, ...] = (
    Metric(
        name="routing_entropy",
        family="confidence",
        formula="mean_t H(p[t])",
        low="0",
        high="ln E",
        needs=("trace", "logits"),
        source=CHECKLIST,
        example="(1.0889 + 1.1935 + 1.0889 + 1.0889)/4 = 1.1151",
        value=_ENTROPY,
        unit="nats",
        undefined=(NO_PROBS,),
    ),
    Metric(
        name="token_routing_entropy",
        family="confidence",
        formula="mean_t H(p[t]) / ln E",
        low="0",
        high="1",
        needs=("trace", "logits"),
        source=CHECKLIST,
        example="1.1151 / ln 4 = 0.8043",
        value=_ENTROPY / E.log(),
        undefined=(NO_PROBS, ONE_EXPERT),
    ),
    Metric(
        name="top_k_entropy",
        family="confidence",
        formula="mean_t H(ŵ[t]) / ln k_t over the tokens with k_t ≥ 2 filled slots",
        low="0",
        high="1",
        needs=("trace", "weights"),
        source=CHECKLIST,
        example="H(0.75, 0.25) = 0.8113 bits, H(0.5, 0.5) = 1 bit: (3 · 0.8113 + 1)/4 = 0.8585",
        value=_TOP_K_ENTROPY,
        undefined=(_NO_ENTROPY,),
    ),
    Metric(
        name="routing_confidence",
        family="confidence",
        formula="1 - top_k_entropy",
        low="0",
        high="1",
        better="up",
        needs=("trace", "weights"),
        source=CHECKLIST,
        example="1 - 0.8585 = 0.1415",
        value=1 - _TOP_K_ENTROPY,
        undefined=(_NO_ENTROPY,),
    ),
    Metric(
        name="selection_margin",
        family="confidence",
        formula="mean_t (smallest p among the chosen - largest p among the rest); negative where a bias steers the "
        "choice",
        low="-1",
        high="1",
        better="up",
        needs=("trace", "logits"),
        source="moefps",
        example="(0.2 - 0.1, 0.4 - 0.1, 0.2 - 0.1, 0.2 - 0.1): 0.6/4 = 0.15",
        value=layer("selection_margin_sum") / layer("selection_margin_tokens"),
        undefined=(
            NO_PROBS,
            (K >= E, "k = E: no expert is left out"),
            (layer("selection_margin_tokens") == 0, "no token leaves an expert out"),
        ),
    ),
    Metric(
        name="top1_margin",
        family="confidence",
        formula="mean_t (largest p - second largest p), chosen or not",
        low="0",
        high="1",
        better="up",
        needs=("trace", "logits"),
        source="moefps",
        example="(0.6 - 0.2, 0.4 - 0.4, 0.6 - 0.2, 0.6 - 0.2): 1.2/4 = 0.3",
        value=layer("top1_margin_sum") / layer("top1_margin_tokens"),
        undefined=(NO_PROBS, ONE_EXPERT, (layer("top1_margin_tokens") == 0, "no token has two probabilities")),
    ),
    Metric(
        name="gate_weight_cv",
        family="confidence",
        formula="std_e(a) / mean_e(a), a_e = mean of w over the slots that chose e (0 for unused)",
        low="0",
        needs=("trace", "weights"),
        source=CHECKLIST + ', as "lpr", layer-wise performance ratio',
        example="a = 0.45, 0.2, 0.5, 0: 0.2323/0.2875 = 0.808",
        aliases=("lpr",),
        value=mean_weight.std() / mean_weight.mean(),
        undefined=(
            NO_TOKEN,
            ONE_EXPERT,
            (mean_weight.mean() <= 0, "the experts' mean weights do not average more than 0"),
        ),
        interval="basic of squares",
    ),
)

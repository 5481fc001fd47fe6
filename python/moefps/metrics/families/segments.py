"""Segments and vocabulary: how much the choices of a stretch of text, or of one token id, are for the same experts.

What the values are made of is counted by `moefps.metrics.segments` and `moefps.metrics.vocabulary`, on request.
"""

from __future__ import annotations

from moefps.metrics.families.expressions import NO_TOKEN, layer
from moefps.metrics.families.specialisation import OLMOE
from moefps.metrics.metric import Metric

__all__ = ["METRICS", "NO_TOKEN_ID", "NO_WINDOW"]

LOCAL_CONSISTENCY = "Local routing consistency, arXiv 2505.16056"

NO_WINDOW = (layer("segment_windows") == 0, "no sequence is as long as a window")
NO_TOKEN_ID = (layer("vocabulary_token_ids") == 0, "no token id has as many tokens as are asked for")

METRICS: tuple[Metric, ...] = (
    Metric(
        name="segment_routing_best_performance",
        family="segments",
        formula="max over alpha = 1..m of F1(alpha) = 2 Σ_{f≥alpha} f / (m·#{f≥alpha} + Σ f); f[e,p]: how many of the "
        "m tokens of window p use e, over all experts of the layer and all windows inside a sequence; m = 16",
        low="0",
        high="1",
        better="up",
        needs=("trace", "windows"),
        source=f"{LOCAL_CONSISTENCY}, SRP (one alpha for all experts of the layer)",
        example="m = 2: f = 2, 2, 2 of expert 0, 1, 1, 1 of experts 1 and 2: F1(1) = 2·12/(2·9 + 12), "
        "F1(2) = 2·6/(2·3 + 12) = 0.6667: the larger = 0.8",
        aliases=("srp",),
        value=layer("segment_performance"),
        undefined=(NO_WINDOW,),
    ),
    Metric(
        name="segment_size_ratio",
        family="segments",
        formula="#{f≥alpha*} / (k·windows), alpha* the smallest alpha that gives segment_routing_best_performance: how "
        "many experts it takes for a window, as a multiple of k",
        low="0",
        high="E/k",
        needs=("trace", "windows"),
        source=f"{LOCAL_CONSISTENCY}, the size that goes with SRP",
        example="m = 2: alpha* = 1, and 9 of f are as large: 9/(2·3) = 1.5",
        value=layer("segment_size"),
        undefined=(NO_WINDOW,),
    ),
    Metric(
        name="segment_cache_hit_rate",
        family="segments",
        formula="share of activations found in a cache of round(rho·k) experts, which is empty at each sequence's "
        "start, and in which a token's other experts take the places of those that the next m tokens use least; "
        "rho = 2, m = 16",
        low="0",
        high="1",
        better="up",
        needs=("trace", "windows"),
        source=f"{LOCAL_CONSISTENCY}, SCH",
        references=("caches of about 2k experts balance hits against memory in most of its 20 models",),
        example="a cache of 4 holds all experts: of 2 activations a token 0, 1, 2 and 2 are found: 5/8 = 0.625",
        aliases=("sch",),
        value=layer("cache_hits") / layer("cache_activations"),
        undefined=((layer("cache_activations") == 0, NO_TOKEN[1]),),
    ),
    Metric(
        name="vocabulary_specialization",
        family="vocabulary",
        formula="N_{x,e} / N_x, the share of the tokens of id x that choose e: mean over the 10 token ids x with the "
        "largest share, of those with N_x ≥ 10 (all, where there are fewer); mean over experts",
        low="0",
        high="1",
        needs=("trace", "token_ids"),
        source=f"{OLMOE} (here of the 10 top token ids of each expert)",
        example="token ids 5, 7, 5, 7, min_count=2: shares 1, 1 of expert 0, 1, 0 of expert 1, 0, 1 of expert 2, 0, 0 "
        "of expert 3: (1 + 0.5 + 0.5 + 0)/4 = 0.5",
        value=layer("vocabulary_mean"),
        undefined=(NO_TOKEN_ID,),
    ),
)

"""What has a command of its own: two dumps of the same tokens, experts by domain, and what a model costs.

The entries are here so that the registry knows every name; `moefps.routing_metrics` has a row of them only where they
are asked for by name, with no value and the command that computes it as the reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moefps.metrics.consistency_measures import METRICS as OF_TWO_DUMPS
from moefps.metrics.metric import Metric

__all__ = ["METRICS"]

_CONSISTENCY = "moefps consistency A B"
_FOCUS = "moefps focus DUMP --by COLUMN"
_COST = "moefps efficiency MODEL"


def _focus(name: str, formula: str, **facts: Any) -> Metric:
    needs = ("trace", "weights", "domains")
    return Metric(name=name, family="focus", formula=formula, needs=needs, level="expert", command=_FOCUS, **facts)


def _cost(name: str, formula: str, **facts: Any) -> Metric:
    facts = {"low": "0", "source": "moefps", "level": "model", **facts}
    return Metric(name=name, family="cost", formula=formula, command=_COST, **facts)


METRICS: tuple[Metric, ...] = (
    *(replace(metric, command=_CONSISTENCY) for metric in OF_TWO_DUMPS if metric.name == "routing_consistency"),
    _focus(
        "expert_focus_degree",
        "max_d P[i,d], P[i,d] = 100 · total[i,d] / Σ_d total[i,d]; total[i,d]: the activations of expert i on tokens "
        "of domain d that are above the threshold (0.1)",
        low="100/D",
        high="100",
        unit="percent",
        chance="100 · max_d T_d / T, a lower limit",
        source="expert focus degree by domain",
        example="totals 45.2, 12.8 and 18.6: 100 · 45.2/76.6 = 59.0",
        aliases=("focus_degree",),
    ),
    _focus(
        "balanced_focus_degree",
        "expert_focus_degree with each domain's totals divided by its tokens first, so that sizes of domains cancel",
        low="100/D",
        high="100",
        unit="percent",
        chance="100/D, a lower limit",
        source="moefps",
        example="totals 40 of 100 tokens and 20 of 25: 0.4 and 0.8: 100 · 0.8/1.2 = 66.7",
    ),
    _focus(
        "focus_entropy",
        "1 - H(P[i]/100) / ln D: 0 where all domains have the same, 1 where one has all",
        low="0",
        high="1",
        source="moefps",
        example="P = 75, 25: 0.8113 bits of 1 bit: 1 - 0.8113 = 0.1887",
    ),
    _cost(
        "total_parameters",
        "all parameters of the model; tied ones count once",
        unit="parameters",
        example="2 embeddings, 3 of a router, 4 experts of 5: 2 + 3 + 4·5 = 25",
    ),
    _cost(
        "active_parameters",
        "the parameters that a token of text uses: all but the experts that it does not choose",
        unit="parameters",
        example="2 embeddings, 3 of a router, 2 of 4 experts of 5: 2 + 3 + 2·5 = 15",
    ),
    _cost(
        "expert_parameters",
        "the parameters of the routed experts",
        unit="parameters",
        example="4 experts of 5: 4·5 = 20",
    ),
    _cost(
        "flops_per_token",
        "2 x the numbers of the matrices that a token is multiplied by, and what attention adds: 2 · positions · heads "
        "· (key size + value size)",
        unit="FLOPs",
        example="matrices of 13 numbers, no attention: 2·13 = 26",
    ),
    _cost(
        "expert_flop_share",
        "the share of flops_per_token that is spent in routed experts",
        high="1",
        example="2 experts of 5 numbers of 13: 20/26 = 0.7692",
    ),
    _cost(
        "expert_parallel_imbalance",
        "largest load of a rank / mean load, the experts placed on ranks side by side: with a measured load (--dump)",
        low="1",
        high="ranks",
        better="down",
        needs=("trace",),
        example="c = 4, 2, 2, 0 on 2 ranks: 6 and 2: 6/4 = 1.5",
    ),
)

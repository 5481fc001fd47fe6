"""What the columns of every table mean, in one line each, with units."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Meaning", "column_meaning"]


class Meaning(NamedTuple):
    """What a column holds.

    Attributes
    ----------
    text : str
        In one line.
    unit : str
        Of its numbers; empty where they have none.
    """

    text: str
    unit: str = ""


_OF_COMPARISON = {
    "layer": Meaning("place of the layer among the MoE layers, from 0"),
    "group": Meaning("which tokens"),
    "count": Meaning("tokens that are compared", "tokens"),
    "tv": Meaning("total variation of the two weight distributions of a token, mean over tokens, 0 to 1"),
    "js": Meaning("Jensen-Shannon divergence of the two weight distributions of a token, base 2, mean, 0 to 1", "bits"),
    "jaccard": Meaning("Jaccard index of the two sets of chosen experts, mean over tokens, 0 to 1"),
    "intersection": Meaning("experts that both chose, mean over tokens", "experts"),
    "intersection_share": Meaning("the same as a share of k, 0 to 1"),
    "top1_match": Meaning("share of tokens whose first expert is the same, 0 to 1"),
    "top5_match": Meaning("share of the five first experts that both have (of all k, where k < 5), 0 to 1"),
    "entropy": Meaning("entropy of the weights of a token, mean over tokens", "nats"),
    "neff": Meaning("effective number of experts, exp(entropy), mean over tokens", "experts"),
    "margin": Meaning("weight of the first expert less that of the second, mean over tokens, 0 to 1"),
    "N_both": Meaning("tokens that are compared", "tokens"),
    "N_a": Meaning("tokens of A in the group with routing here", "tokens"),
    "N_b": Meaning("tokens of B in the group with routing here", "tokens"),
    "usage_entropy": Meaning("entropy of the usage, the share of assignments of each expert", "nats"),
    "top1_share": Meaning("share of assignments that the busiest expert holds, 0 to 1"),
    "top5_share": Meaning("share of assignments that the five busiest experts hold, 0 to 1"),
    "usage_tv": Meaning("total variation of the two usages, 0 to 1"),
    "usage_tv_null": Meaning("its mean when the conditions are exchanged within random halves of the tasks"),
    "usage_js": Meaning("Jensen-Shannon divergence of the two usages, base 2, 0 to 1", "bits"),
    "rank": Meaning("place by the absolute difference, from 1"),
    "expert": Meaning("number of the expert in its layer, from 0"),
    "u": Meaning("usage: the share of assignments that the expert has, 0 to 1"),
    "delta_u": Meaning("difference of usage, A less B"),
    "delta_u_tool": Meaning("difference of usage, A less B, on tool responses without docstrings"),
    "delta_u_canonical": Meaning("difference of usage, A less B, on the solution without white space"),
    "r": Meaning("Pearson's correlation over experts of delta_u_tool and delta_u_canonical"),
    "p": Meaning("p value of signs of delta_u_tool flipped at random, two-sided"),
    "q": Meaning("p adjusted for the number of layers (Benjamini and Hochberg)"),
    "spearman": Meaning("Spearman's rank correlation of the two"),
    "slope": Meaning("slope of the least-squares line of delta_u_canonical on delta_u_tool"),
    "n_experts": Meaning("experts of the layer", "experts"),
    "reason": Meaning("why there is no value"),
    "distance_min": Meaning("nearest distance to the last token of the last tool response before", "tokens"),
    "distance_max": Meaning("farthest distance; empty where there is no end", "tokens"),
}

_OF_METRICS = {
    "group": Meaning("which tokens"),
    "layer": Meaning("place of the layer among the MoE layers, from 0"),
    "expert": Meaning("number of the expert in its layer, from 0"),
    "metric": Meaning("name of the metric; the table of definitions says what it is"),
    "value": Meaning("value in this layer, with its interval where there is one"),
    "text": Meaning("the experts, or the word, where the metric has one"),
    "reason": Meaning("why there is no value"),
    "chance": Meaning("value under independent uniform top-k routing"),
    "target": Meaning("what the value should reach"),
    "threshold": Meaning("the number that the target stands for here"),
    "met": Meaning("whether the target is met"),
    "note": Meaning("what to know about the target"),
    "reason_ci": Meaning("why there is no interval"),
    "n_layers": Meaning("layers with a value", "layers"),
    "n_null": Meaning("layers without a value", "layers"),
    "mean": Meaning("mean over layers, with its interval where there is one"),
    "min": Meaning("smallest value of a layer"),
    "max": Meaning("largest value of a layer"),
    "std": Meaning("standard deviation over layers"),
    "better": Meaning("which way is better"),
    "n_missed": Meaning("targets missed: layers that miss it, or metrics of the layer that do"),
    "worst_metric": Meaning("the metric that misses its target by most, or stands out most"),
    "violation": Meaning("how far on the wrong side of its target, as a share of it; negative where it is met"),
    "deviation": Meaning("how far on the worse side of the mean over layers", "standard deviations"),
    "expert_token_counts": Meaning("tokens that chose the expert", "tokens"),
    "expert_activation_counts": Meaning("slots that hold the expert", "slots"),
    "expert_weighted_counts": Meaning("sum of the weights that the expert got"),
    "expert_token_proportions": Meaning("share of the layer's assignments, 0 to 1"),
    "is_dead": Meaning("whether no token chose it"),
    "is_underused": Meaning("whether it has less than half its even share"),
    "n_experts": Meaning("experts of the layer, passive ones left out", "experts"),
    "top_k": Meaning("slots of a token", "slots"),
    "rows": Meaning("rows of the trace that were read", "rows"),
    "tokens": Meaning("tokens with a filled slot", "tokens"),
    "assignments": Meaning("filled slots", "slots"),
    "passive_slots": Meaning("slots on passive experts", "slots"),
    "empty_slots": Meaning("slots that hold no expert", "slots"),
    "tokens_without_shares": Meaning("tokens whose weights have no positive sum", "tokens"),
    "tokens_without_probs": Meaning("tokens without a full distribution", "tokens"),
    "pairs": Meaning("pairs of neighbouring tokens", "pairs"),
    "pairs_without_shares": Meaning("of those, pairs without shares of weights", "pairs"),
    "path": Meaning("path of the router in the model"),
    "model_layer": Meaning("the model's own number of the layer"),
    "stack": Meaning("part of the model that the layer belongs to"),
    "scoring": Meaning("how the router turns logits into weights"),
    "routing_type": Meaning("who chooses: tokens or experts"),
    "passive_experts": Meaning("experts that do nothing", "experts"),
    "signed_weights": Meaning("whether weights may be negative"),
    "domain_specialization": Meaning("share of the group's tokens that chose the expert, 0 to 1"),
    "domain_affinity": Meaning("that share, divided by the share of all tokens that chose it"),
    "domain_purity": Meaning("largest share of the expert's tokens that one group has, 0 to 1"),
    "family": Meaning("what kind of metric it is"),
    "formula": Meaning("its definition; docs/metrics.md has the notation"),
    "range": Meaning("the values that it can have"),
    "unit": Meaning("of the value"),
    "source": Meaning("where the definition is from"),
}

_OF_PICKS = {
    "rank": Meaning("place in the order of the picks, from 1"),
    "index": Meaning("the sample, from 0"),
    "name": Meaning("name of the sample"),
    "label": Meaning("label of the sample"),
    "radius": Meaning("covering radius after this pick: largest distance of any sample to its nearest pick"),
    "cluster_size": Meaning("samples that have this pick as their nearest", "samples"),
    "typicality": Meaning(
        "percentile of the mean distance to all others: 100 for the commonest path through the experts", "%"
    ),
    "n_tokens": Meaning("tokens of the sample", "tokens"),
}

_BOOKS = {"comparison": _OF_COMPARISON, "metrics": _OF_METRICS, "picks": _OF_PICKS}
_SIDES = {"_a": ", in A", "_b": ", in B", "_diff": ", A less B"}


def column_meaning(book: str, name: str) -> Meaning:
    """Say what a column means.

    Parameters
    ----------
    book : {"comparison", "metrics", "picks"}
        What the table is of.
    name : str
        The column.

    Returns
    -------
    Meaning
        With an empty text for columns of the user's own.

    Examples
    --------
    >>> column_meaning("comparison", "neff_diff")
    Meaning(text='effective number of experts, exp(entropy), mean over tokens, A less B', unit='experts')
    """
    known = _BOOKS[book]
    if name in known:
        return known[name]
    if book != "comparison":
        return Meaning("")
    if name.endswith("_weighted"):
        text, unit = column_meaning(book, name.removesuffix("_weighted"))
        return Meaning(f"{text}; by shares of weights, not assignments", unit)
    for side, words in _SIDES.items():
        if name.endswith(side) and name.removesuffix(side) in known:
            text, unit = known[name.removesuffix(side)]
            return Meaning(text + words, unit)
    return Meaning("")

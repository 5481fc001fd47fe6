"""Routing metrics of one layer, straight from their definitions: loops over tokens, slots and experts.

Where something is not defined there is None. Nothing here looks at how moefps counts.
"""

from __future__ import annotations

import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np

from moefps.kernels import LogitSums

__all__ = ["ELSEWHERE", "chances", "layer_metrics", "probabilities", "sums_of_logits", "tokens_of"]

ELSEWHERE = {"gram", "segments", "vocabulary", "cost", "consistency", "focus"}
"""Families of metrics whose references are not here."""


def tokens_of(ids, weights, n_experts):
    """What each row of a layer says: its slots on real experts, in order, with their weights if there are any."""
    tokens = []
    for t in range(len(ids)):
        slots = [j for j in range(len(ids[t])) if 0 <= ids[t][j] < n_experts]
        w = None if weights is None else [float(weights[t][j]) for j in slots]
        tokens.append(([int(ids[t][j]) for j in slots], w))
    return tokens


def layer_metrics(ids, weights, follows, *, n_experts, passive=0, top_k, probs=None, logits=None, capacity_factor=1.25):
    """All metrics of a layer that are one number.

    ids and weights are [T][k], follows [T] booleans or None, n_experts counts passive ones; probs is [T][E] of the real
    experts and logits [T][E], or None.
    """
    real = n_experts - passive
    tokens = tokens_of(ids, weights, real)
    idle = sum(1 for row in ids for e in row if e >= real)
    found = {}
    c = [sum(chosen.count(e) for chosen, _ in tokens) for e in range(real)]
    found |= load(tokens, c, top_k, idle)
    found |= balance(tokens, c, top_k, probs, logits)
    found |= capacity(c, capacity_factor)
    found |= confidence(tokens, c, top_k, probs)
    found |= overlap(tokens, real)
    found |= locality(tokens, follows, top_k)
    return found


def mean(x):
    return None if not x else sum(x) / len(x)


def std(x):
    if len(x) < 2:
        return None
    middle = sum(x) / len(x)
    return math.sqrt(sum((v - middle) ** 2 for v in x) / (len(x) - 1))


def ratio(a, b):
    return None if a is None or b is None or b == 0 else a / b


def entropy(x):
    return -sum(v * math.log(v) for v in x if v > 0)


def shares(w):
    """ŵ of a token, None where its weights sum to 0."""
    total = sum(w)
    return None if total == 0 else [v / total for v in w]


def load(tokens, c, top_k, idle):
    E, A = len(c), sum(c)
    filled = [token for token in tokens if token[0]]
    T, m = len(filled), A / E
    found = {"total_expert_activations": A, "passive_share": ratio(idle, idle + A)}
    q = None if A == 0 else [v / A for v in c]
    active = None if q is None else sum(1 for v in c if v > 0)
    for name in ("expert_utilization_rate", "fraction_active_experts", "expert_activation_ratio"):
        found[name] = None if active is None else active / E
    found["sparsity_ratio"] = None if active is None else 1 - active / E
    found["num_active_experts"] = active
    found["dead_experts"] = None if q is None else sum(1 for v in c if v == 0)
    found["underused_experts"] = None if q is None else sum(1 for v in c if v < 0.5 * m)
    found["avg_experts_per_token"] = ratio(A, T)
    found["routing_sparsity"] = None if T == 0 else 1 - A / T / E
    found["token_choice_entropy"] = None if q is None or E == 1 else entropy(q) / math.log(E)
    found["effective_experts"] = None if q is None else math.exp(entropy(q))
    found["top1_share"] = None if q is None else max(q)
    found["top5_share"] = None if q is None else sum(sorted(q)[::-1][:5])
    return found | weighted_load(filled, c)


def weighted_load(filled, c):
    names = ("expert_activation_entropy", "expert_entropy_bits", "expert_concentration")
    names += ("weighted_load_balancing_coefficient", "weighted_load_imbalance_ratio")
    names += ("expert_avg_routing_weight_mean", "expert_avg_routing_weight_std", "gate_weight_cv")
    found = dict.fromkeys(names)
    E = len(c)
    if any(w is None for _, w in filled) or not filled:
        return found
    g, v = [0.0] * E, [0.0] * E
    for chosen, w in filled:
        hat = shares(w)
        for j, e in enumerate(chosen):
            v[e] += w[j]
            if hat is not None:
                g[e] += hat[j]
    if any(shares(w) is not None for _, w in filled):
        r = [x / sum(g) for x in g]
        found["expert_concentration"] = E * max(r)
        if min(r) >= 0:
            found["expert_entropy_bits"] = entropy(r) / math.log(2)
            found["expert_activation_entropy"] = None if E == 1 else entropy(r) / math.log(E)
    if sum(v) > 0:
        found["weighted_load_balancing_coefficient"] = ratio(std(v), mean(v))
        found["weighted_load_imbalance_ratio"] = max(v) / mean(v)
    a = [v[e] / c[e] if c[e] else 0.0 for e in range(E)]
    found["expert_avg_routing_weight_mean"] = mean(a)
    found["expert_avg_routing_weight_std"] = std(a)
    found["gate_weight_cv"] = ratio(std(a), mean(a)) if mean(a) > 0 else None
    return found


def balance(tokens, c, top_k, probs, logits):
    E, A = len(c), sum(c)
    names = ("load_balancing_coefficient", "load_variance", "std_tokens_per_expert", "load_imbalance_ratio")
    names += ("expert_efficiency", "utilization_efficiency", "gini_coefficient", "min_max_expert_load_ratio", "maxvio")
    names += ("normalized_maxvio", "balanced_utilization", "aux_loss", "router_z_loss")
    found = dict.fromkeys(names)
    if A == 0:
        return found
    m = A / E
    if E > 1:
        found["load_balancing_coefficient"] = std(c) / m
        found["load_variance"] = (std(c) / m) ** 2
        found["std_tokens_per_expert"] = std(c)
        found["utilization_efficiency"] = 1 - std(c) / m
    found["load_imbalance_ratio"] = max(c) / m
    found["expert_efficiency"] = m / max(c)
    x = sorted(c)
    found["gini_coefficient"] = sum((2 * i - E - 1) * x[i - 1] for i in range(1, E + 1)) / (E * A)
    found["min_max_expert_load_ratio"] = min(c) / max(c)
    found["maxvio"] = (max(c) - m) / m
    found["normalized_maxvio"] = found["maxvio"] / (E / top_k - 1) if top_k < E else None
    found["balanced_utilization"] = 1 - sum(abs(v / A - 1 / E) for v in c) / 2
    seen = [t for t, (chosen, _) in enumerate(tokens) if chosen]
    if probs is not None:
        P = [sum(probs[t][e] for t in seen) / len(seen) for e in range(E)]
        found["aux_loss"] = E * sum(c[e] / A * P[e] for e in range(E))
        found["router_z_loss"] = sum(math.log(sum(math.exp(x) for x in logits[t])) ** 2 for t in seen) / len(seen)
    return found


def capacity(c, factor):
    E, A = len(c), sum(c)
    ideal = factor * A / E
    found = {"capacity_factor": factor, "ideal_capacity_per_expert": ideal}
    found["capacity_usage"] = max(c) / ideal if A else None
    found["capacity_utilization"] = A / E / ideal if A else None
    found["dropped_fraction"] = sum(max(0, v - math.ceil(ideal - 1e-9)) for v in c) / A if A else None
    return found


def confidence(tokens, c, top_k, probs):
    E = len(c)
    names = ("top_k_entropy", "routing_confidence", "routing_entropy", "token_routing_entropy")
    found = dict.fromkeys((*names, "selection_margin", "top1_margin"))
    entropies = []
    for chosen, w in tokens:
        if w is not None and len(chosen) >= 2 and shares(w) is not None and min(w) >= 0:
            entropies.append(entropy(shares(w)) / math.log(len(chosen)))
    if entropies:
        found["top_k_entropy"] = mean(entropies)
        found["routing_confidence"] = 1 - mean(entropies)
    if probs is None:
        return found
    seen = [(probs[t], chosen) for t, (chosen, _) in enumerate(tokens) if chosen]
    if seen:
        found["routing_entropy"] = mean([entropy(p) for p, _ in seen])
        found["token_routing_entropy"] = None if E == 1 else found["routing_entropy"] / math.log(E)
    margins = []
    for p, chosen in seen:
        rest = [p[e] for e in range(E) if e not in chosen]
        if rest:
            margins.append(min(p[e] for e in chosen) - max(rest))
    found["selection_margin"] = mean(margins) if top_k < E else None
    found["top1_margin"] = None if E == 1 else mean([sorted(p)[-1] - sorted(p)[-2] for p, _ in seen])
    return found


def overlap(tokens, n_experts):
    sets = [{t for t, (chosen, _) in enumerate(tokens) if e in chosen} for e in range(n_experts)]
    index = [len(a & b) / len(a | b) for a, b in combinations(sets, 2) if a and b]
    return {
        "expert_overlap": mean(index),
        "expert_overlap_std": std(index),
        "expert_overlap_max": max(index, default=None),
    }


def locality(tokens, follows, top_k):
    names = ("sequential_routing_consistency", "expert_reuse_rate", "top_k_overlap", "top_k_jaccard")
    found = dict.fromkeys((*names, "routing_locality"))
    if follows is None:
        return found
    same, reused, common, jaccard, alike = [], [], [], [], []
    for t in range(1, len(tokens)):
        (a, wa), (b, wb) = tokens[t - 1], tokens[t]
        if not follows[t] or not a or not b:
            continue
        both, either = set(a) & set(b), set(a) | set(b)
        reused.append(1 if both else 0)
        common.append(len(both) / top_k)
        jaccard.append(len(both) / len(either))
        if wa is None:
            continue
        same.append(1 if a[wa.index(max(wa))] == b[wb.index(max(wb))] else 0)
        ha, hb = shares(wa), shares(wb)
        if ha is not None and hb is not None:
            of_a = {e: sum(h for x, h in zip(a, ha, strict=True) if x == e) for e in either}
            of_b = {e: sum(h for x, h in zip(b, hb, strict=True) if x == e) for e in either}
            alike.append(1 - sum(abs(of_a[e] - of_b[e]) for e in either) / 2)
    found["sequential_routing_consistency"] = mean(same)
    found["expert_reuse_rate"] = mean(reused)
    found["top_k_overlap"] = mean(common)
    found["top_k_jaccard"] = mean(jaccard)
    found["routing_locality"] = mean(alike)
    return found


def chances(n_experts, top_k):
    """The values under independent uniform top-k routing, by going through all choices of k of E experts."""
    first = set(range(top_k))
    every = [set(other) for other in combinations(range(n_experts), top_k)]
    found = {
        "expert_reuse_rate": mean([1 if first & other else 0 for other in every]),
        "top_k_overlap": mean([len(first & other) / top_k for other in every]),
        "top_k_jaccard": mean([len(first & other) / len(first | other) for other in every]),
        "sequential_routing_consistency": 1 / n_experts,
    }
    # Of many tokens, P(both) / P(either).
    both = mean([1 if {0, 1} <= other else 0 for other in every]) if n_experts > 1 else 0
    either = mean([1 if {0, 1} & other else 0 for other in every])
    found["expert_overlap"] = both / either if n_experts > 1 else None
    return found


def probabilities(logits, experts, passive):
    """Of each layer, p over its real experts for every token."""
    found = []
    for layer, (n, idle) in enumerate(zip(experts, passive, strict=True)):
        powers = np.exp(logits[:, layer, : n - idle])
        found.append(powers / powers.sum(axis=1, keepdims=True))
    return found


def sums_of_logits(logits, ids, probs, experts, passive):
    """What a kernel would have added up, token by token."""
    n_layers, real = len(experts), [n - idle for n, idle in zip(experts, passive, strict=True)]
    found = SimpleNamespace(prob_sums=np.zeros((n_layers, max(real))))
    names = ("tokens", "tokens_without_probs", "z_tokens", "selection_margin_tokens", "top1_margin_tokens")
    for name in (*names, "entropy_sums", "z_sums", "selection_margin_sums", "top1_margin_sums"):
        setattr(found, name, np.zeros(n_layers, dtype=int if name.startswith("tokens") or "_tokens" in name else float))
    for layer in range(n_layers):
        for t, (chosen, _) in enumerate(tokens_of(ids[:, layer], None, real[layer])):
            if not chosen:
                continue
            p, E = probs[layer][t], real[layer]
            found.tokens[layer] += 1
            found.z_tokens[layer] += 1
            found.prob_sums[layer, :E] += p
            found.entropy_sums[layer] += -(p * np.log(p)).sum()
            found.z_sums[layer] += np.log(np.exp(logits[t, layer, : experts[layer]]).sum()) ** 2
            rest = np.delete(p, chosen)
            if len(rest):
                found.selection_margin_tokens[layer] += 1
                found.selection_margin_sums[layer] += p[chosen].min() - rest.max()
            if E > 1:
                found.top1_margin_tokens[layer] += 1
                found.top1_margin_sums[layer] += np.sort(p)[-1] - np.sort(p)[-2]
    return LogitSums(np.array(real), ("softmax",) * n_layers, **vars(found))

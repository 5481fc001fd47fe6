"""SPECTRAAnalyzer's numbers of one step, value by value, from their definitions; no epsilons, and floats of 64 bits.

Where a definition divides by zero, the original's epsilon decides: a divisor that is not 0 is left alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

TINY = 1e-8


def step(
    routing,
    expression,
    ids,
    weights,
    cosines,
    *,
    n_experts,
    capacity_factor=1.25,
    penalty=0.0,
    loss=0.0,
    outputs=None,
) -> dict[str, Any]:
    """Every key of a step; arrays of numpy."""
    tokens = [[int(e) for e in row] for row in ids]
    weights = [[float(w) for w in row] for row in weights]
    R, X = vectors(routing), vectors(expression)
    found = {**gram(R), **similarities(R), **expressions(R, X), **chosen_cosines(cosines, tokens)}
    found |= {"speciality_penalty": float(penalty), "expression_loss": float(loss)}
    found |= load(tokens, weights, n_experts, capacity_factor) | overlap(tokens, n_experts)
    k = len(tokens[0])
    entropies = [-sum(w * math.log(w) for w in row if w > 0) for row in weights]
    found["routing_confidence"] = over(sum(entropies) / len(tokens), math.log(k))
    found |= neighbours(tokens, weights) | output_diversity(outputs)
    return found


def vectors(array) -> list[list[float]]:
    """Token means, of length 1."""
    array = np.asarray(array, dtype=float)
    while array.ndim > 2:
        array = sum(array) / len(array)
    array = array.tolist()
    lengths = [math.sqrt(sum(x * x for x in row)) for row in array]
    return [[x / length if length else 0.0 for x in row] for row, length in zip(array, lengths, strict=True)]


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def pairs_of(R) -> list[float]:
    return [dot(a, b) for i, a in enumerate(R) for j, b in enumerate(R) if i != j]


def distance_to_identity(R) -> float:
    return math.sqrt(sum((dot(a, b) - (i == j)) ** 2 for i, a in enumerate(R) for j, b in enumerate(R)))


def gram(R) -> dict[str, float]:
    n = len(R)
    eigenvalues = np.linalg.eigvalsh([[dot(a, b) for b in R] for a in R])
    least = min(eigenvalues)
    return {
        "gram_matrix_orthogonality": 1 - distance_to_identity(R) / (n * math.sqrt(2)),
        "gram_diagonal_quality": sum(dot(a, a) for a in R) / n,
        "gram_off_diagonal_sparsity": mean([abs(c) for c in pairs_of(R)]),
        "gram_condition_number": float(max(eigenvalues) / least) if least > TINY else math.inf,
        "gram_frobenius_norm": math.sqrt(sum(dot(a, b) ** 2 for a in R for b in R)),
    }


def similarities(R) -> dict[str, float]:
    cosines = pairs_of(R)
    return {
        "expert_similarity_mean": mean(cosines),
        "expert_similarity_std": std(cosines),
        "expert_diversity_score": 1 - mean(cosines),
        "expert_specialization_strength": std(cosines) ** 2,
    }


def expressions(R, X) -> dict[str, float]:
    aligned = [dot(r, x) for r, x in zip(R, X, strict=True)]
    return {
        "expert_routing_expression_alignment": mean(aligned),
        "expert_routing_expression_alignment_std": std(aligned),
        "expression_projection_orthogonality": 1 - distance_to_identity(X) / (len(X) * math.sqrt(2)),
        "expression_routing_complementarity": 1 - mean(aligned),
    }


def chosen_cosines(cosines, tokens) -> dict[str, float]:
    rows = np.asarray(cosines, dtype=float).reshape(-1, np.shape(cosines)[-1]).tolist()
    everything = [x for row in rows for x in row]
    chosen = [rows[t % len(rows)][e] for t, experts in enumerate(tokens) for e in experts]
    return {
        "cosine_similarity_mean": mean(everything),
        "cosine_similarity_std": std(everything),
        "selected_expert_cosine_mean": mean(chosen),
    }


def load(tokens, weights, n_experts, capacity_factor) -> dict[str, Any]:
    k = len(tokens[0])
    n, v = [0] * n_experts, [0.0] * n_experts
    for experts, row in zip(tokens, weights, strict=True):
        for expert, weight in zip(experts, row, strict=True):
            n[expert] += 1
            v[expert] += weight
    total, most, average = sum(n), max(n), sum(n) / n_experts
    shares, weighted = [c / total for c in n], [over(x, sum(v), 0.0) for x in v]
    a = [x / c if c else 0.0 for x, c in zip(v, n, strict=True)]
    active = sum(c > 0 for c in n)
    entropy = over(-sum(q * math.log(q) for q in shares if q > 0), math.log(n_experts))
    ideal = capacity_factor * total / n_experts
    running = [sum(sorted(n)[: i + 1]) / total for i in range(n_experts)]
    return {
        "expert_activation_entropy": over(-sum(r * math.log(r) for r in weighted if r > 0), math.log(n_experts)),
        "expert_concentration": n_experts * max(weighted),
        "expert_token_counts": [float(c) for c in n],
        "expert_activation_counts": n,
        "expert_weighted_counts": v,
        "expert_token_proportions": shares,
        "total_tokens_processed": total,
        "total_expert_activations": len(tokens) * k,
        "load_balancing_coefficient": std(n) / average,
        "load_imbalance_ratio": most / average,
        "weighted_load_balancing_coefficient": over(std(v), mean(v), 0.0),
        "weighted_load_imbalance_ratio": over(max(v), mean(v), 0.0),
        "expert_proportion_entropy": entropy,
        "token_choice_entropy": entropy,
        "expert_avg_routing_weight_mean": mean(a),
        "expert_avg_routing_weight_std": std(a),
        "lpr": over(std(a), mean(a), 0.0),
        "maxvio": max(abs(c - average) for c in n),
        "normalized_maxvio": max(abs(c - average) for c in n) / average,
        "aux_loss": n_experts * sum(q * over(b, sum(a), 0.0) for q, b in zip(shares, a, strict=True)),
        "expert_capacity_utilization": active / n_experts,
        "expert_utilization_rate": active / n_experts,
        "fraction_active_experts": active / n_experts,
        "expert_activation_ratio": active / n_experts,
        "num_active_experts": active,
        "sparsity_ratio": 1 - active / n_experts,
        "load_variance": (std(n) / average) ** 2,
        "expert_efficiency": average / most,
        "utilization_efficiency": 1 - std(n) / average,
        "capacity_factor": capacity_factor,
        "ideal_capacity_per_expert": ideal,
        "capacity_usage": most / ideal,
        "capacity_utilization": average / ideal,
        "routing_sparsity": 1 - k / n_experts,
        "avg_experts_per_token": float(k),
        "routing_type": "token_choice",
        "std_tokens_per_expert": std(n),
        "gini_coefficient": 1 - 2 * sum(running) / n_experts,
        "min_max_expert_load_ratio": min(n) / most,
    }


def overlap(tokens, n_experts) -> dict[str, float]:
    sets = [{t for t, experts in enumerate(tokens) if e in experts} for e in range(n_experts)]
    found = []
    for i in range(n_experts):
        for j in range(i + 1, n_experts):
            union = sets[i] | sets[j]
            found.append(len(sets[i] & sets[j]) / len(union) if union else 1.0)
    found = found or [0.0]
    average = sum(found) / len(found)
    return {
        "expert_overlap_mean": average,
        "expert_overlap_std": math.sqrt(sum((x - average) ** 2 for x in found) / len(found)),
        "expert_overlap_max": max(found),
    }


def neighbours(tokens, weights) -> dict[str, float]:
    """Slot 0 is taken for rank 1, and all tokens for one sequence."""
    pairs = list(zip(range(len(tokens) - 1), range(1, len(tokens)), strict=True))
    if not pairs:
        return {}
    same = mean([float(tokens[a][0] == tokens[b][0]) for a, b in pairs])
    sets = [set(experts) for experts in tokens]
    return {
        "sequential_routing_consistency": same,
        "expert_reuse_rate": same,
        "top_k_overlap": mean([len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs]),
        "routing_locality": 1 - mean([abs(weights[a][0] - weights[b][0]) for a, b in pairs]),
    }


def output_diversity(outputs) -> dict[str, float]:
    if not outputs or len(outputs) < 2:
        return {}
    means = [np.mean(outputs[e], axis=0) for e in sorted(outputs)]
    return {"expert_output_diversity": 1 - mean(pairs_of(vectors(means)))}


def over(above, below, otherwise=None) -> float:
    """Divide; by 0 it is what IEEE 754 says, or what the original's epsilon makes of 0 / 0."""
    if below:
        return above / below
    if otherwise is not None:
        return math.nan if math.isnan(above) else otherwise
    return math.nan if above == 0 else math.copysign(math.inf, above)


def mean(values) -> float:
    return sum(values) / len(values) if len(values) else math.nan


def std(values) -> float:
    """With ddof=1."""
    average = mean(values)
    return math.sqrt(sum((x - average) ** 2 for x in values) / (len(values) - 1)) if len(values) > 1 else math.nan


def aggregate(steps) -> dict[str, Any]:
    """What is aggregated over steps."""

    def column(key):
        return np.array([s[key] for s in steps], dtype=float)

    found: dict[str, Any] = {}
    for prefixes, name, key in AGGREGATES:
        for prefix in prefixes.split():
            values = column(key)
            kinds = {"avg": values.mean(0), "std": values.std(0), "final": values[-1], "min": values.min(0)}
            found[f"{prefix}_{name}"] = {**kinds, "max": values.max(0)}[prefix].tolist()
    return found


AGGREGATES = (
    ("avg std", "gram_orthogonality", "gram_matrix_orthogonality"),
    ("avg", "speciality_penalty", "speciality_penalty"),
    ("avg", "cosine_similarity", "cosine_similarity_mean"),
    ("avg std final", "load_balancing_coefficient", "load_balancing_coefficient"),
    ("avg std final", "expert_token_counts", "expert_token_counts"),
    ("final", "load_balancing_cv", "load_balancing_coefficient"),
    ("final", "load_imbalance_ratio", "load_imbalance_ratio"),
    ("avg max final", "maxvio", "maxvio"),
    ("avg final", "aux_loss", "aux_loss"),
    ("avg final", "lpr", "lpr"),
    ("avg final", "expert_efficiency", "expert_efficiency"),
    ("avg", "expert_capacity_utilization", "expert_capacity_utilization"),
    ("avg", "load_variance", "load_variance"),
    ("avg final", "expert_utilization_rate", "expert_utilization_rate"),
    ("avg final", "expert_diversity_score", "expert_diversity_score"),
    ("avg final", "expert_similarity_mean", "expert_similarity_mean"),
    ("avg final", "expert_specialization_strength", "expert_specialization_strength"),
    ("avg final min max", "expert_overlap", "expert_overlap_mean"),
    ("avg final min max", "gini_coefficient", "gini_coefficient"),
    ("avg final min max", "min_max_expert_load_ratio", "min_max_expert_load_ratio"),
)

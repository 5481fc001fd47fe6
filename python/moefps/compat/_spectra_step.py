"""The formulas of one step of SPECTRAAnalyzer, from its arrays or from sums of them.

Divisors and logarithms have the original's epsilon of 1e-8, in the precision that the original has there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps._typing import Float64Array, IndexArray
from moefps.compat._spectra_vectors import ExpertVectors, mean_and_std
from moefps.kernels import count_routing

__all__ = [
    "EPSILON",
    "consistency_values",
    "cosine_values",
    "entropy_terms",
    "expression_values",
    "load_values",
    "overlap_values",
    "routing_values",
    "similarity_values",
    "usage_values",
    "weighted_values",
]

EPSILON = 1e-8


def entropy_terms(values: npt.NDArray[Any]) -> Float64Array:
    """Give -x ln(x + ε) of each value; ε is added in the values' own precision, where it leaves a 1 as it is."""
    guarded = (values + values.dtype.type(EPSILON)).astype(np.float64)
    found: Float64Array = -values.astype(np.float64) * np.log(guarded)
    return found


def _share_entropy(shares: Float64Array) -> float:
    """Give the entropy of shares in float32, as of 1."""
    return _ratio(float(entropy_terms(shares.astype(np.float32)).sum()), math.log(len(shares)))


def _ratio(above: float, below: float) -> float:
    """Divide as IEEE 754 does: 0 / 0 is NaN, and anything else by 0 infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(above) / np.float64(below))


def routing_values(ids: IndexArray, weights: npt.NDArray[Any], *, n_experts: int, factor: float) -> dict[str, Any]:
    """Give all of a step that its choices and weights alone tell.

    Parameters
    ----------
    ids : ndarray of int64 [T, k]
        Chosen experts, none empty.
    weights : ndarray of float32 or float64 [T, k]
        Their weights.
    n_experts : int
        E.
    factor : float
        The capacity factor.
    """
    n_tokens, top_k = ids.shape
    follows = np.ones(n_tokens, dtype=np.bool_)
    counted = count_routing(ids[:, None, :].astype(np.int16), n_experts=n_experts, follows=follows)
    counts = counted.activations[0]
    weight_sums: Float64Array = np.zeros(n_experts)
    weight_sums += np.bincount(ids.ravel(), weights.ravel().astype(np.float64), minlength=n_experts)
    found: dict[str, Any] = weighted_values(weight_sums)
    assert counted.coactivation is not None  # noqa: S101 (it is counted by default)
    found |= overlap_values(counted.tokens_by_expert[0], counted.coactivation[0])
    found["routing_confidence"] = _ratio(float(entropy_terms(weights).sum()) / n_tokens, math.log(top_k))
    found |= usage_values(counts, n_tokens=n_tokens, top_k=top_k)
    if n_tokens >= 2:
        assert counted.jaccard_sums is not None  # noqa: S101 (there are neighbours)
        same = int((ids[1:, 0] == ids[:-1, 0]).sum())
        change = float(np.abs(np.diff(weights[:, 0].astype(np.float64))).sum())
        found |= consistency_values(n_tokens - 1, same, float(counted.jaccard_sums[0]), change)
    return found | load_values(counts, weight_sums, top_k=top_k, factor=factor)


def weighted_values(weight_sums: Float64Array) -> dict[str, float]:
    """Give what the sums of weights by expert tell of specialisation."""
    shares = weight_sums / (weight_sums.sum() + EPSILON)
    return {
        "expert_activation_entropy": _share_entropy(shares),
        "expert_concentration": float(shares.max()) * len(shares),
    }


def overlap_values(sizes: IndexArray, common: IndexArray) -> dict[str, float]:
    """Give the Jaccard indices of the experts' token sets: two empty sets have 1, an empty one and another 0.

    Parameters
    ----------
    sizes : ndarray of int64 [E]
        Tokens of each expert.
    common : ndarray of int64 [E, E]
        Tokens of both.
    """
    i, j = np.triu_indices(len(sizes), 1)
    shared = common[i, j]
    union = sizes[i] + sizes[j] - shared
    overlaps = np.where(union == 0, 1.0, shared / np.maximum(union, 1))
    if not len(overlaps):
        overlaps = np.zeros(1)
    return {
        "expert_overlap_mean": float(overlaps.mean()),
        "expert_overlap_std": float(overlaps.std()),
        "expert_overlap_max": float(overlaps.max()),
    }


def usage_values(counts: IndexArray, *, n_tokens: int, top_k: int) -> dict[str, Any]:
    """Give what the original calls the cost of inference."""
    n_experts, n_active = len(counts), int((counts > 0).sum())
    mean, std = mean_and_std(counts)
    return {
        "num_active_experts": n_active,
        "expert_activation_ratio": n_active / n_experts,
        "avg_experts_per_token": float(top_k),
        "total_expert_activations": n_tokens * top_k,
        "utilization_efficiency": 1.0 - std / (mean + EPSILON),
    }


def consistency_values(pairs: int, same: int, jaccard: float, change: float) -> dict[str, float]:
    """Give what neighbours tell, from sums over all pairs of them.

    Parameters
    ----------
    pairs : int
        How many pairs there are.
    same : int
        Pairs with the same expert in slot 0.
    jaccard : float
        Σ of the Jaccard indices of their sets of experts.
    change : float
        Σ of how much the weight of slot 0 changes.
    """
    return {
        "sequential_routing_consistency": same / pairs,
        "top_k_overlap": jaccard / pairs,
        "routing_locality": 1.0 - change / pairs,
        "expert_reuse_rate": same / pairs,
    }


def load_values(counts: IndexArray, weight_sums: Float64Array, *, top_k: int, factor: float) -> dict[str, Any]:
    """Give all that the original calls load balancing, from counts and sums of weights by expert."""
    n_experts, total = len(counts), int(counts.sum())
    mean, std = mean_and_std(counts)
    weighted_mean, weighted_std = mean_and_std(weight_sums)
    largest, smallest = int(counts.max()), int(counts.min())
    imbalance = largest / (mean + EPSILON)
    rate = float((counts > 0).mean())
    shares = counts / (total + EPSILON)
    share_entropy = _share_entropy(shares)
    averages = weight_sums / (counts + EPSILON)
    average_mean, average_std = mean_and_std(averages)
    violation = float(np.abs(counts - mean).max())
    ideal = factor * (total / n_experts)
    running = np.cumsum(np.sort(counts)) / total
    return {
        "expert_token_counts": counts.astype(np.float64).tolist(),
        "expert_weighted_counts": weight_sums.tolist(),
        "expert_activation_counts": counts.tolist(),
        "load_balancing_coefficient": std / (mean + EPSILON),
        "weighted_load_balancing_coefficient": weighted_std / (weighted_mean + EPSILON),
        "load_imbalance_ratio": imbalance,
        "weighted_load_imbalance_ratio": float(weight_sums.max()) / (weighted_mean + EPSILON),
        "expert_utilization_rate": rate,
        "expert_token_proportions": shares.tolist(),
        "expert_proportion_entropy": share_entropy,
        "expert_avg_routing_weight_mean": average_mean,
        "expert_avg_routing_weight_std": average_std,
        "total_tokens_processed": total,
        "maxvio": violation,
        "normalized_maxvio": violation / (mean + EPSILON),
        "aux_loss": n_experts * float((shares * (averages / (averages.sum() + EPSILON))).sum()),
        "lpr": average_std / (average_mean + EPSILON),
        "expert_capacity_utilization": rate,
        "load_variance": std**2 / (mean + EPSILON) ** 2,
        "expert_efficiency": 1.0 / (imbalance + EPSILON),
        "capacity_factor": factor,
        "ideal_capacity_per_expert": ideal,
        "capacity_usage": largest / (ideal + EPSILON),
        "capacity_utilization": mean / (ideal + EPSILON),
        "routing_sparsity": 1.0 - top_k / n_experts,
        "avg_experts_per_token": float(top_k),
        "fraction_active_experts": rate,
        "sparsity_ratio": 1.0 - rate,
        "routing_type": "token_choice",
        "token_choice_entropy": share_entropy,
        "std_tokens_per_expert": std,
        "gini_coefficient": 1.0 - 2.0 * float(running.sum()) / (n_experts + EPSILON),
        "min_max_expert_load_ratio": smallest / (largest + EPSILON),
    }


def similarity_values(routing: ExpertVectors) -> dict[str, float]:
    """Give what the cosines between experts tell of specialisation."""
    mean, std = mean_and_std(routing.off_diagonal)
    return {
        "expert_similarity_mean": mean,
        "expert_similarity_std": std,
        "expert_diversity_score": 1.0 - mean,
        "expert_specialization_strength": std**2,
    }


def expression_values(routing: ExpertVectors, expression: ExpertVectors) -> dict[str, float]:
    """Give how the experts' two vectors lie to each other."""
    # Rows have length 1 but for those that are 0, whose cosine is 0.
    mean, std = mean_and_std((routing.rows * expression.rows).sum(axis=-1))
    return {
        "expert_routing_expression_alignment": mean,
        "expert_routing_expression_alignment_std": std,
        "expression_projection_orthogonality": expression.orthogonality,
        "expression_routing_complementarity": 1.0 - mean,
    }


def cosine_values(cosines: npt.NDArray[Any], ids: IndexArray) -> dict[str, float]:
    """Give what the cosines of tokens and experts tell.

    Parameters
    ----------
    cosines : ndarray [B, S, E]
        Of each token and expert.
    ids : ndarray of int64 [T, k]
        Chosen experts; where T is not B S, the original begins with the first token again, or stops early.
    """
    rows = cosines.reshape(-1, cosines.shape[-1])
    mean, std = mean_and_std(cosines)
    chosen = rows[(np.arange(len(ids)) % len(rows))[:, None], ids]
    return {
        "cosine_similarity_mean": mean,
        "cosine_similarity_std": std,
        "selected_expert_cosine_mean": mean_and_std(chosen)[0],
    }

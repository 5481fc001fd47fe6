"""What vectors of experts say about their likeness, pair by pair, straight from the definitions."""

from __future__ import annotations

import math

import numpy as np


def cosine(a, b) -> float:
    """Between two vectors; 0 where one is zero."""
    lengths = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths > 0 else 0.0


def gram_metrics(vectors, outputs=None, expressions=None) -> dict[str, float | None]:
    """All metrics of one layer by name; None where not defined."""
    rows = [[float(x) for x in row] for row in vectors]
    n = len(rows)
    gram = [[cosine(a, b) for b in rows] for a in rows]
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    found: dict[str, float | None] = {
        "gram_diagonal_quality": math.fsum(gram[i][i] for i in range(n)) / n,
        "gram_frobenius_norm": math.sqrt(math.fsum(x * x for row in gram for x in row)),
        "gram_condition_number": condition(gram),
        "expert_output_diversity": None,
        "expert_routing_expression_alignment": None,
    }
    mean = math.fsum(gram[i][j] for i, j in pairs) / len(pairs) if pairs else None
    variance = math.fsum((gram[i][j] - mean) ** 2 for i, j in pairs) / (len(pairs) - 1) if pairs else None
    apart = math.fsum((gram[i][j] - (i == j)) ** 2 for i in range(n) for j in range(n))
    found |= {
        "expert_similarity_mean": mean,
        "expert_similarity_std": math.sqrt(variance) if pairs else None,
        "expert_diversity_score": 1 - mean if pairs else None,
        "expert_specialization_strength": variance,
        "gram_matrix_orthogonality": 1 - math.sqrt(apart) / math.sqrt(n * (n - 1)) if pairs else None,
        "gram_off_diagonal_sparsity": 1 - math.fsum(abs(gram[i][j]) for i, j in pairs) / len(pairs) if pairs else None,
    }
    if outputs is not None and pairs:
        cosines = [cosine(outputs[i], outputs[j]) for i, j in pairs]
        found["expert_output_diversity"] = 1 - math.fsum(cosines) / len(cosines)
    if expressions is not None:
        aligned = [cosine(a, b) for a, b in zip(rows, expressions, strict=True)]
        found["expert_routing_expression_alignment"] = math.fsum(aligned) / n
    return found


def condition(gram) -> float:
    """Of a symmetric matrix, by the singular values, which are the eigenvalues of what is never negative."""
    values = np.linalg.svd(np.array(gram), compute_uv=False)
    return float(values.max() / values.min()) if values.min() > 1e-8 else math.inf

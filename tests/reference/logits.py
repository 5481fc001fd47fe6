"""What full distributions add up to, token by token and expert by expert, straight from the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

COUNTS = ("tokens", "tokens_without_probs", "z_tokens", "selection_margin_tokens", "top1_margin_tokens")
"""What must be exact."""
SUMS = ("prob_sums", "entropy_sums", "z_sums", "selection_margin_sums", "top1_margin_sums")
"""What may differ by rounding."""


def logit_sums(ids, logits, *, n_experts, scoring, passive=None, groups=None, n_groups=1) -> dict[str, Any]:
    """All counts and sums, with a first axis of groups."""
    n_tokens, n_layers, _ = ids.shape
    real = [n - p for n, p in zip(n_experts, passive or [0] * n_layers, strict=True)]
    found = {name: np.zeros((n_groups, n_layers), dtype=float if name in SUMS else int) for name in (*COUNTS, *SUMS)}
    found["prob_sums"] = np.zeros((n_groups, n_layers, max(real)))
    for layer in range(n_layers):
        for token in range(n_tokens):
            at = (0 if groups is None else int(groups[token]), layer)
            chosen = {int(e) for e in ids[token, layer] if 0 <= e < real[layer]}
            if chosen and scoring[layer] != "other":
                row = [float(x) for x in logits[token, layer, : n_experts[layer]]]
                add_token(found, at, row, real[layer], scoring[layer], chosen)
    return found


def add_token(found, at, row, n_real, scoring, chosen) -> None:
    real = row[:n_real]
    scores = [score(x, max(real), scoring) for x in real]
    total = math.fsum(scores)
    if total == 0:
        found["tokens_without_probs"][at] += 1
        return
    p = [s / total for s in scores]
    found["tokens"][at] += 1
    found["prob_sums"][(*at, slice(n_real))] += p
    found["entropy_sums"][at] += -math.fsum(x * math.log(x) for x in p if x > 0)
    if scoring != "probabilities":
        largest = max(row)
        found["z_sums"][at] += (largest + math.log(math.fsum(math.exp(x - largest) for x in row))) ** 2
        found["z_tokens"][at] += 1
    rest = [p[e] for e in range(n_real) if e not in chosen]
    if rest:
        found["selection_margin_sums"][at] += min(p[e] for e in chosen) - max(rest)
        found["selection_margin_tokens"][at] += 1
    if n_real > 1:
        first, second = sorted(p)[-1:-3:-1]
        found["top1_margin_sums"][at] += first - second
        found["top1_margin_tokens"][at] += 1


def score(x, largest, scoring) -> float:
    """What of the logit is proportional to the probability."""
    if scoring in ("softmax", "softmax_topk"):
        return 0.0 if x == -math.inf else math.exp(x - largest)
    if scoring == "sigmoid":
        return math.exp(x) / (1 + math.exp(x)) if x < 0 else 1 / (1 + math.exp(-x))
    if scoring in ("sqrt_softplus", "hash"):
        return math.sqrt(math.log1p(math.exp(x)) if x < 0 else x + math.log1p(math.exp(-x)))
    assert scoring == "probabilities"
    return x

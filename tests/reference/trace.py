"""Fingerprints of a trace, token by token and slot by slot, straight from the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def distribution(logits: Sequence[float], scoring: str) -> list[float] | None:
    """The router's full distribution over its experts; None where every score is 0."""
    if scoring == "probabilities":
        return [float(x) for x in logits]
    if scoring in {"softmax", "softmax_topk"}:
        highest = max(logits)
        scores = [math.exp(x - highest) for x in logits]
    elif scoring == "sigmoid":
        scores = [0.0 if x < -700 else 1 / (1 + math.exp(-x)) for x in logits]
    elif scoring in {"sqrt_softplus", "hash"}:
        scores = [math.sqrt(x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))) for x in logits]
    else:
        raise ValueError(scoring)
    total = sum(scores)
    return None if total == 0 else [score / total for score in scores]


def fingerprint(
    kind: str,
    ids: npt.NDArray[Any],
    weights: npt.NDArray[Any] | None,
    logits: npt.NDArray[Any] | None,
    n_experts: Sequence[int],
    scoring: Sequence[str],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The fingerprint of some tokens, NaN in layers without one, and how many tokens of each layer have no mean.

    ``ids`` and ``weights`` are [n, L, k], ``logits`` [n, L, E]; the result is [L, E] and [L].
    """
    n_layers, widest = len(n_experts), max(n_experts)
    rows = np.zeros((n_layers, widest))
    left_out = np.zeros(n_layers, dtype=np.int64)
    for layer in range(n_layers):
        total = 0.0
        for token in range(len(ids)):
            slots = [slot for slot in range(ids.shape[2]) if ids[token, layer, slot] >= 0]
            if not slots:
                continue
            if kind == "counts":
                for slot in slots:
                    rows[layer, ids[token, layer, slot]] += 1
                    total += 1
            elif kind == "weights":
                whole = sum(float(weights[token, layer, slot]) for slot in slots)
                if whole == 0:
                    left_out[layer] += 1
                    continue
                for slot in slots:
                    rows[layer, ids[token, layer, slot]] += float(weights[token, layer, slot]) / whole
                total += 1
            else:
                shares = distribution([float(x) for x in logits[token, layer, : n_experts[layer]]], scoring[layer])
                if shares is None:
                    left_out[layer] += 1
                    continue
                rows[layer, : n_experts[layer]] += shares
                total += 1
        rows[layer] = rows[layer] / total if total else np.nan
    return rows, left_out


def windows(n_tokens: int, window: int | None, stride: int | None) -> list[tuple[int, int]]:
    """First and last-but-one token of every window of a sample: only whole ones, or the sample if it is shorter."""
    if window is None or n_tokens < window:
        return [(0, n_tokens)]
    found = []
    start = 0
    while start + window <= n_tokens:
        found.append((start, start + window))
        start += stride or window
    return found

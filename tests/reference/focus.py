"""Activations and the expert focus degree, token by token, straight from the definitions."""

from __future__ import annotations

import math

import numpy as np

BANDS = ("scattered", "light", "medium", "high", "extreme")


def token_activations(ids, numbers, *, activation, n_experts, passive=0, scoring="softmax"):
    """The activations of one token in one layer, expert to number; None without a slot, {} if left out."""
    real = n_experts - passive
    slots = [j for j in range(len(ids)) if 0 <= ids[j] < real]
    if not slots:
        return None
    if activation == "probs":
        shares = distribution([float(x) for x in numbers[:n_experts]], scoring)
        return {} if shares is None else {e: shares[e] for e in range(real)}
    whole = 0.0
    for j in slots:
        whole += float(numbers[j])
    if activation == "renormalized" and whole == 0:
        return {}
    found = {}
    for j in slots:
        found[int(ids[j])] = found.get(int(ids[j]), 0.0) + float(numbers[j])
    return {e: x / whole for e, x in found.items()} if activation == "renormalized" else found


def distribution(logits, scoring):
    """The router's full distribution; None where all scores are 0."""
    if scoring == "probabilities":
        scores = logits
        return scores if sum(scores) else None
    if scoring in ("softmax", "softmax_topk"):
        most = max(logits)
        scores = [math.exp(x - most) if most > -math.inf else 0.0 for x in logits]
    elif scoring == "sigmoid":
        scores = [1 / (1 + math.exp(-x)) if x > -700 else 0.0 for x in logits]
    else:
        scores = [math.sqrt(math.log1p(math.exp(x))) if x > -700 else 0.0 for x in logits]
    whole = sum(scores)
    return [x / whole for x in scores] if whole else None


def sums(tokens, groups, n_groups, *, n_experts, threshold, n_bins=100, highest=1.0):
    """What the activations of one layer sum up to; `tokens` as `token_activations` gives them.

    The threshold is one in the precision of the activations.

    Returns
    -------
    dict
        Arrays [G, E], but histogram [E, bins], below and above [E], tokens and left_out [G].
    """
    found = {name: np.zeros((n_groups, n_experts), dtype=int) for name in ("activations", "counts")}
    found |= {name: np.zeros((n_groups, n_experts)) for name in ("totals", "maxima")}
    found |= {name: np.zeros(n_experts, dtype=int) for name in ("below", "above")}
    found |= {name: np.zeros(n_groups, dtype=int) for name in ("tokens", "left_out")}
    found["histogram"] = np.zeros((n_experts, n_bins), dtype=int)
    for token, group in zip(tokens, groups, strict=True):
        if token is None:
            continue
        found["tokens"][group] += 1
        found["left_out"][group] += not token
        for expert, x in token.items():
            found["activations"][group, expert] += 1
            if x > threshold:
                found["counts"][group, expert] += 1
                found["totals"][group, expert] += x
                found["maxima"][group, expert] = max(found["maxima"][group, expert], x)
            if x < 0:
                found["below"][expert] += 1
            elif x > highest:
                found["above"][expert] += 1
            else:
                found["histogram"][expert, min(int(x * (n_bins / highest)), n_bins - 1)] += 1
    return found


def focus(totals, tokens=None):
    """The focus of one expert: from its totals by domain, divided by each domain's tokens where those are given.

    Returns
    -------
    dict or None
        percent (a list), degree, domain, second, second_percent, entropy, band; None without any activation. Domains
        without tokens count for nothing.
    """
    here = [d for d in range(len(totals)) if tokens is None or tokens[d] > 0]
    values = [totals[d] / (1 if tokens is None else tokens[d]) if d in here else 0.0 for d in range(len(totals))]
    whole = sum(values)
    if whole == 0:
        return None
    percent = [100 * (x / whole) for x in values]
    ranked = sorted(here, key=lambda d: (-percent[d], d))
    entropy = -sum(p / 100 * math.log(p / 100) for p in percent if p > 0)
    return {
        "percent": percent,
        "degree": percent[ranked[0]],
        "domain": ranked[0],
        "second": ranked[1] if len(here) > 1 else None,
        "second_percent": percent[ranked[1]] if len(here) > 1 else None,
        "entropy": 1 - entropy / math.log(len(here)) if len(here) > 1 else None,
        "band": BANDS[min(int(percent[ranked[0]] // 20), 4)],
    }

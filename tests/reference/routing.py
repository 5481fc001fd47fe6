"""Routing of a model, one sample at a time, by a hook a layer and nothing clever."""

from __future__ import annotations

import numpy as np


def plain_routing(model, routers, ids, **inputs):
    """Run one sample alone and give its ids, weights and logits, [n, L, k] and [n, L, E].

    Parameters
    ----------
    model : nn.Module
        The model.
    routers : list of nn.Module
        Modules whose output is (logits, weights, ids).
    ids : sequence of int
        The sample's tokens.
    """
    import torch

    seen = {}
    handles = [
        module.register_forward_hook(lambda _m, _a, output, i=i: seen.setdefault(i, []).append(output))
        for i, module in enumerate(routers)
    ]
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([list(ids)]), use_cache=False, **inputs)
    finally:
        for handle in handles:
            handle.remove()
    assert all(len(calls) == 1 for calls in seen.values())
    outputs = [seen[i][0] for i in range(len(routers))]
    logits = np.stack([output[0].float().numpy() for output in outputs], axis=1)
    weights = np.stack([output[1].float().numpy() for output in outputs], axis=1)
    chosen = np.stack([output[2].numpy() for output in outputs], axis=1)
    return chosen, weights, logits


def plain_fingerprint(kind, chosen, weights, logits):
    """Fingerprint of one sample, token by token, in float64; ids, weights and logits as `plain_routing` gives them."""
    n_tokens, n_layers, n_experts = logits.shape
    result = np.zeros((n_layers, n_experts))
    for layer in range(n_layers):
        for token in range(n_tokens):
            if kind == "probs":
                scores = np.exp(logits[token, layer].astype(np.float64) - logits[token, layer].max())
                result[layer] += scores / scores.sum() / n_tokens
                continue
            share = weights[token, layer].astype(np.float64)
            share = share / share.sum() if kind == "weights" else np.full(len(share), 1 / len(share))
            for expert, amount in zip(chosen[token, layer], share, strict=True):
                result[layer, expert] += amount / n_tokens
    return result

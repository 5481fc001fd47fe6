"""Dumps of uneven layers, for tests of the expert focus degree."""

from __future__ import annotations

import numpy as np
import polars as pl

import moefps
from moefps.io.dump import LayerInfo

DOMAINS = ["maths", "code", "law"]


def write(path, seed=0, *, lengths=(5, 0, 9, 4, 12, 7), experts=(6, 4), passive=(1, 0), k=3, drop=0.1, **more):
    """Write a dump of uneven layers, with dropped tokens, weights that sum to 0, and logits."""
    rng = np.random.default_rng(seed)
    shape = (sum(lengths), len(experts))
    ids = np.full((*shape, k), -1, dtype=np.int16)
    for layer, n in enumerate(experts):
        order = rng.random((shape[0], n)) ** 2 * np.linspace(1, 4, n)
        ids[:, layer, : min(n, k)] = order.argsort(axis=1)[:, :k]
    ids[rng.random(ids.shape) < drop] = -1
    ids[rng.random(shape) < drop] = -1
    weights = rng.choice([0.0, 0.05, 0.1, 0.25, 0.6], ids.shape).astype(np.float32)
    scoring = more.pop("scoring", ["softmax"] * len(experts))
    layers = [
        LayerInfo(index=i, path=f"m.{i}", layer=i, n_experts=n, top_k=k, passive_experts=p, scoring=scoring[i])
        for i, (n, p) in enumerate(zip(experts, passive, strict=True))
    ]
    given = {
        "expert_ids": ids,
        "expert_weights": weights,
        "router_logits": rng.normal(0, 2, (*shape, max(experts))).astype(np.float32),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "layers": layers,
        "samples": pl.DataFrame({"domain": [DOMAINS[i % 3] for i in range(len(lengths))]}),
        "tokens": pl.DataFrame({"segment": rng.choice(["prompt", "answer"], shape[0])}),
    }
    return moefps.write_dump(path, **given | more)

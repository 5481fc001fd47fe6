"""A dump with everything in it, for tests of what writes dumps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moefps.io.dump import DumpHeader, LayerInfo

ARRAYS = ("expert_ids", "expert_weights", "router_logits", "fingerprints", "hidden_states")
LENGTHS = [3, 0, 5, 2]


def make_header(**changes):
    layers = tuple(
        LayerInfo(index=i, path=f"model.layers.{i + 1}.mlp.gate", layer=i + 1, n_experts=8, top_k=2, scoring="softmax")
        for i in range(3)
    )
    fields = {
        "layers": layers,
        "arrays": {
            "expert_ids": np.dtype(np.int16),
            "expert_weights": np.dtype(np.float16),
            "router_logits": np.dtype(np.float32),
            "hidden_states": np.dtype(np.float32),
            "fingerprints": np.dtype(np.float32),
        },
        "fingerprint_kind": "probs",
        "hidden_layers": (1, 2),
        "hidden_size": 4,
        "model": {"id": "tiny"},
        "plan": {"batches": [[0, 2], [1, 3]], "dtype": "float32"},
        "token_labels": {"segment": ("prompt", "generated"), "loss": np.dtype(np.float32)},
        "extra": {"batching": {"tokens": 64}},
    }
    return DumpHeader(**{**fields, **changes})


def sample_data(sample, n_tokens):
    rng = np.random.default_rng(sample)
    logits = rng.normal(size=(n_tokens, 3, 8)).astype(np.float32)
    shares = rng.dirichlet(np.ones(8), size=3).astype(np.float32)
    return {
        "expert_ids": np.argsort(-logits, axis=2)[:, :, :2].astype(np.int16),
        "expert_weights": rng.random((n_tokens, 3, 2)).astype(np.float16),
        "router_logits": logits,
        "hidden_states": rng.normal(size=(n_tokens, 2, 4)).astype(np.float32),
        "fingerprint": shares,
        "token_ids": rng.integers(0, 1000, n_tokens),
        "labels": {
            "segment": (np.arange(n_tokens) > 1).astype(np.int64),
            "loss": rng.random(n_tokens).astype(np.float32),
        },
    }


def write_all(writer, order=None, lengths=None):
    for sample in range(len(LENGTHS)) if order is None else order:
        if not writer.done[sample]:
            writer.write(sample, **sample_data(sample, (LENGTHS if lengths is None else lengths)[sample]))


def array_bytes(path):
    return {name: (Path(path) / f"{name}.npy").read_bytes() for name in ARRAYS}

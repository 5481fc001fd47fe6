"""A small dump, and ways to break it."""

from __future__ import annotations

import json

import numpy as np

from moefps.io.dump import write_dump

OFFSETS = [0, 4, 4, 9, 12]


def trace(n_tokens=12, n_layers=3, n_experts=8, top_k=2, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n_tokens, n_layers, n_experts)).astype(np.float32)
    ids = np.argsort(-logits, axis=2)[:, :, :top_k].astype(np.int16)
    return {
        "expert_ids": ids,
        "expert_weights": rng.random((n_tokens, n_layers, top_k)).astype(np.float32),
        "router_logits": logits,
        "fingerprints": rng.dirichlet(np.ones(n_experts), size=(len(OFFSETS) - 1, n_layers)).astype(np.float32),
    }


def write_small_dump(path):
    """Write 4 samples of 12 tokens, 3 layers of 8 experts."""
    write_dump(
        path,
        **trace(),
        offsets=OFFSETS,
        n_experts=8,
        fingerprint_kind="probs",
        scoring="softmax",
        samples={"task": ["law", "law", "intent", "summary"]},
        tokens={"token_id": np.arange(12)},
    )
    return path


def edit_manifest(path, edit):
    found = json.loads((path / "manifest.json").read_text())
    edit(found)
    (path / "manifest.json").write_text(json.dumps(found))


def edit_array(path, name, edit):
    array = np.load(path / f"{name}.npy")
    array = edit(array) if edit(array) is not None else array
    np.save(path / f"{name}.npy", array)


def put(index, value):
    def edit(array):
        array[index] = value
        return array

    return edit

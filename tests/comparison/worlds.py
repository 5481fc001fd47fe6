"""Small worlds of two conditions: pairs of random texts, and dumps of made-up routing on them."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import polars as pl

import moefps
from moefps.io.dump import LayerInfo
from moefps.io.pair_tokens import read_pair_tokens


def make_record(rng, name, *, stub=6, canonical=8, head=3, has_response=True, filler=0):
    """One task: a tool response that shows the stub, and the solution."""
    sizes = {"system": 2, "tool_schema": 3, "user_prompt": 4, "tool_call": 2}
    kinds = [(kind, None, size) for kind, size in sizes.items()]
    if has_response:
        kinds += [("tool_response", None, head), ("tool_response", "stub", stub), ("tool_response", None, 1)]
    kinds += [("assistant", None, filler)] if filler else []
    kinds += [("canonical", "canonical", canonical)]
    edges = np.cumsum([0, *(size for _, _, size in kinds)]).tolist()
    segments = [[kind, key, *span] for (kind, key, _), span in zip(kinds, pairwise(edges), strict=True)]
    n = edges[-1]
    agentic = rng.integers(2, 50, size=n).tolist()
    is_shared = np.zeros(n, dtype=bool)
    for _, key, start, end in segments:
        is_shared[start:end] = key is not None
    mask = is_shared.copy()
    # Words of its own, right before the first shared segment.
    first = int(is_shared.argmax())
    mask[first - 2 : first] = True
    assisted = np.where(is_shared, agentic, np.where(mask, 51, 0)).tolist()
    at = {kind: [p for k, _, start, end in segments if k == kind for p in range(start, end)] for kind, _, _ in kinds}
    response = at.get("tool_response", [])
    docstring = [p for p in response if is_shared[p]][: stub // 2]
    return {
        "task_id": name,
        "agentic_ids": agentic,
        "assisted_aligned_ids": assisted,
        "assisted_aligned_attention_mask": mask.astype(int).tolist(),
        "canonical_positions": at["canonical"],
        "canonical_non_ws_positions": [p for p in at["canonical"] if p % 4],
        "tool_positions": {
            "schema": at["tool_schema"],
            "call": at["tool_call"],
            "response": response,
            "response_docstring": docstring,
            "response_non_docstring": [p for p in response if p not in docstring],
        },
        "segments": segments,
    }


def write_pairs(path, records):
    path.write_text(json.dumps(records))
    return read_pair_tokens(path)


def rows_of(records, condition):
    """Task, position and token id of every token of a condition."""
    agentic = condition == "agentic"
    for number, record in enumerate(records):
        ids = record["agentic_ids" if agentic else "assisted_aligned_ids"]
        for position, token in enumerate(ids):
            if agentic or record["assisted_aligned_attention_mask"][position]:
                yield number, position, token


def write_condition(path, records, condition, *, ids, weights, n_experts, pairs=None, top_k=None, passive=0):
    """A dump of one condition; `ids` and `weights` are in the order of `rows_of`."""
    rows = list(rows_of(records, condition))
    lengths = np.bincount([number for number, _, _ in rows], minlength=len(records))
    layers = [
        LayerInfo(i, f"layers.{i}", i, n, k, passive_experts=passive)
        for i, (n, k) in enumerate(zip(n_experts, top_k or [ids.shape[2]] * ids.shape[1], strict=True))
    ]
    return moefps.write_dump(
        path,
        expert_ids=ids,
        expert_weights=weights,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        layers=layers,
        samples=pl.DataFrame({"task_id": [record["task_id"] for record in records]}),
        tokens=pl.DataFrame({"position": [p for _, p, _ in rows], "token_id": [t for _, _, t in rows]}),
        extra=None if pairs is None else {"pairs": {"sha256": pairs.sha256, "condition": condition}},
    )


def random_routing(rng, n_tokens, n_experts, k, *, drop=0.0, skew=0.0):
    """Distinct experts for every token, some slots empty, weights from the largest down."""
    scores = rng.gumbel(size=(n_tokens, len(n_experts), max(n_experts)))
    scores += skew * np.linspace(1, 0, max(n_experts))
    for layer, n in enumerate(n_experts):
        scores[:, layer, n:] = -np.inf
    ids = np.argsort(-scores, axis=2)[:, :, :k].astype(np.int16)
    weights = np.sort(rng.random(ids.shape), axis=2)[:, :, ::-1].astype(np.float32)
    empty = rng.random(ids.shape) < drop
    return np.where(empty, -1, ids).astype(np.int16), np.where(empty, 0, weights).astype(np.float32)

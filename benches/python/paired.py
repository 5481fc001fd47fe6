"""Two conditions of made-up tasks on disk, which share most of their tokens and route them partly alike."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps.io.dump import DumpHeader, DumpWriter, LayerInfo
from moefps.io.pair_tokens import PairTokens, TaskTokens, check_task_tokens, read_pair_tokens, serialise_pair_tokens

from .timing import say

Array = npt.NDArray[Any]

BLOCK = 4096
# Kind, key and share of the shared tokens. What has no key only the agentic condition has.
SEGMENTS = (
    ("system", None, 0.25),
    ("tool_schema", "schema", 0.1),
    ("user_prompt", "prompt", 0.1),
    ("tool_call", "call", 0.1),
    ("tool_response", "stub", 0.3),
    ("canonical", "canonical", 0.4),
)
CONDITIONS = ("agentic", "assisted")


@dataclass(frozen=True)
class Sizes:
    """How large it all is; `tokens` are those that both conditions have."""

    layers: int
    experts: int
    top_k: int
    tasks: int
    tokens: int


# Times the layers, 20 million pairs.
FULL = Sizes(48, 128, 8, 164, 416_667)
QUICK = Sizes(4, 32, 8, 12, 2_000)


@dataclass(frozen=True)
class Choices:
    """Routing of a block of tokens, [BLOCK, L, k], weights in falling order and summing to 1."""

    ids: npt.NDArray[np.int16]
    weights: npt.NDArray[np.float32]


def write_conditions(folder: Path, sizes: Sizes) -> tuple[list[Path], Path]:
    """Write a file of pairs and a dump of each condition: the dumps' paths, and the file's."""
    say(f"generating {sizes.tokens * sizes.layers:,} pairs")
    rng = np.random.default_rng(0)
    # Tasks of uneven length, together exactly so many.
    ends = np.cumsum(rng.uniform(0.5, 1.5, sizes.tasks))
    lengths = np.diff([0, *(ends / ends[-1] * sizes.tokens).astype(np.int64)])
    tasks = [_make_task(rng, f"task/{i}", int(length)) for i, length in enumerate(lengths)]
    path = folder / "pair_tokens.json"
    path.write_bytes(serialise_pair_tokens(tasks))
    pairs = read_pair_tokens(path)
    blocks = zip(CONDITIONS, _make_blocks(rng, sizes), strict=True)
    return [_write_dump(folder / f"{name}.dump", pairs, name, block, sizes) for name, block in blocks], path


def _make_task(rng: np.random.Generator, name: str, n_shared: int) -> TaskTokens:
    """One task with tokens in every group."""
    sizes = [max(2, round(share * n_shared)) for _, _, share in SEGMENTS[:-1]]
    sizes.append(n_shared - sum(sizes[1:]))
    edges = np.cumsum([0, *sizes]).tolist()
    spans = {kind: span for (kind, _, _), span in zip(SEGMENTS, pairwise(edges), strict=True)}
    positions = {kind: list(range(*span)) for kind, span in spans.items()}
    response, canonical = positions["tool_response"], positions["canonical"]
    docstring = response[: len(response) // 3]
    own = spans["system"][1]
    mask = np.ones(edges[-1], dtype=np.int64)
    # The assisted condition has a few words of its own, right before what is shared.
    mask[: own - own // 4] = 0
    agentic = rng.integers(2, 30_000, edges[-1])
    assisted = np.where(mask, agentic, 0)
    assisted[own - own // 4 : own] = 1
    record = {
        "task_id": name,
        "agentic_ids": agentic.tolist(),
        "assisted_aligned_ids": assisted.tolist(),
        "assisted_aligned_attention_mask": mask.tolist(),
        "canonical_positions": canonical,
        "canonical_non_ws_positions": [p for p in canonical if p % 6],
        "tool_positions": {
            "schema": positions["tool_schema"],
            "call": positions["tool_call"],
            "response": response,
            "response_docstring": docstring,
            "response_non_docstring": response[len(docstring) :],
        },
        "segments": [[kind, key, *spans[kind]] for kind, key, _ in SEGMENTS],
    }
    return check_task_tokens(record, "made-up pairs")


def _make_blocks(rng: np.random.Generator, sizes: Sizes) -> tuple[Choices, Choices]:
    """Routing of both conditions: scores under uneven load, and the same with noise."""
    shape = BLOCK, sizes.layers, sizes.top_k
    blocks = tuple(Choices(np.empty(shape, np.int16), np.empty(shape, np.float32)) for _ in CONDITIONS)
    for layer in range(sizes.layers):
        scores = rng.standard_normal((BLOCK, sizes.experts), dtype=np.float32)
        scores += rng.standard_normal(sizes.experts, dtype=np.float32)
        for block in blocks:
            chosen = np.argpartition(-scores, sizes.top_k, axis=1)[:, : sizes.top_k]
            order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
            chosen = np.take_along_axis(chosen, order, axis=1)
            shares = np.exp(np.take_along_axis(scores, chosen, axis=1))
            block.ids[:, layer], block.weights[:, layer] = chosen, shares / shares.sum(axis=1, keepdims=True)
            scores += np.float32(0.4) * rng.standard_normal(scores.shape, dtype=np.float32)
    return blocks[0], blocks[1]


def _write_dump(path: Path, pairs: PairTokens, condition: str, block: Choices, sizes: Sizes) -> Path:
    """Write what a condition has of every task: the block again and again, from other rows and experts renumbered."""
    layers = tuple(
        LayerInfo(i, f"model.layers.{i}.mlp.gate", i, sizes.experts, sizes.top_k, scoring="softmax")
        for i in range(sizes.layers)
    )
    header = DumpHeader(
        layers=layers,
        arrays={"expert_ids": np.dtype(np.int16), "expert_weights": np.dtype(np.float32)},
        extra={"pairs": {"sha256": pairs.sha256, "condition": condition}},
    )
    valid = [np.flatnonzero(task.mask(condition)) for task in pairs]
    names = {"task_id": [task.task_id for task in pairs]}
    capacities = [len(positions) for positions in valid]
    with DumpWriter(path, header, capacities=capacities, samples=names, sync_seconds=60.0) as writer:
        for i, (task, positions) in enumerate(zip(pairs, valid, strict=True)):
            # The same rows for a position in both conditions, so that what they share is routed partly alike.
            rows = (positions + 37 * i) % BLOCK
            writer.write(
                i,
                expert_ids=(block.ids[rows] + np.int16(i % sizes.experts)) % np.int16(sizes.experts),
                expert_weights=block.weights[rows],
                token_ids=task.ids(condition)[positions],
                positions=positions,
            )
    return path

"""Routing metrics: a trace of a billion assignments, and real traces beside a plain loop over tokens."""

from __future__ import annotations

import math
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import moefps

from .data import TRACES
from .timing import Contender, race, say

LAYERS, EXPERTS, TOP_K = 48, 128, 8
SAMPLE_TOKENS = 2048
ASSIGNMENTS = 1_000_000_000
BLOCK_SAMPLES = 8


def main(n_threads: int, *, quick: bool) -> dict[str, Any]:
    """Time both, on `n_threads` threads."""
    with tempfile.TemporaryDirectory(prefix="moefps-bench-") as folder:
        found = {"real": _real(Path(folder), n_threads, quick=quick)}
        dump = _generated(Path(folder) / "generated", ASSIGNMENTS // (2000 if quick else 1))
        found["generated"] = _large(dump, n_threads, quick=quick)
    return found


def _real(folder: Path, n_threads: int, *, quick: bool) -> dict[str, Any]:
    """All trace metrics of the ESFT traces, and a loop in Python that only counts what they are made of."""
    name, ids, weights, offsets, n_experts = _traces(quick=quick)
    dump = moefps.write_dump(
        folder / "real", expert_ids=ids, expert_weights=weights, offsets=offsets, n_experts=n_experts
    )

    def ours() -> Any:
        return moefps.routing_metrics(dump, n_threads=n_threads)

    def loop() -> Any:
        return [
            _loop_over_tokens(ids[:, layer].tolist(), weights[:, layer].tolist(), offsets.tolist(), n_experts)
            for layer in range(ids.shape[1])
        ]

    contenders = [
        Contender("moefps.routing_metrics", ours, details={"threads": n_threads}),
        Contender("plain Python loop over tokens, counts alone", loop, 1, warm_up=int, details={"threads": 1}),
    ]
    return {"data": name, "shape": ids.shape, "contenders": race(contenders)}


def _loop_over_tokens(
    ids: list[list[int]], weights: list[list[float]], offsets: list[int], n_experts: int
) -> dict[str, Any]:
    """Count in plain Python what most metrics of a layer are made of: lists, no numpy, nothing done twice."""
    counts, weighted = [0] * n_experts, [0.0] * n_experts
    together = [[0] * n_experts for _ in range(n_experts)]
    entropy = jaccard = locality = 0.0
    common = reused = same_first = pairs = 0
    for start, stop in pairwise(offsets):
        before: tuple[set[int], dict[int, float], int] | None = None
        for t in range(start, stop):
            chosen, w = ids[t], weights[t]
            total = sum(w)
            shares = {e: x / total for e, x in zip(chosen, w, strict=True)}
            for e, share in shares.items():
                counts[e] += 1
                weighted[e] += share
                if share > 0:
                    entropy -= share * math.log(share)
                row = together[e]
                for other in chosen:
                    row[other] += 1
            first, experts = chosen[w.index(max(w))], set(chosen)
            if before is not None:
                both = len(experts & before[0])
                pairs += 1
                common += both
                reused += both > 0
                jaccard += both / (len(experts) + len(before[0]) - both)
                same_first += first == before[2]
                locality += sum(min(share, before[1].get(e, 0.0)) for e, share in shares.items())
            before = experts, shares, first
    return {"counts": counts, "weighted": weighted, "together": together, "sums": (entropy, jaccard, locality)}


def _traces(*, quick: bool) -> tuple[str, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], int]:
    if not TRACES.is_file():
        rng = np.random.default_rng(0)
        ids, weights = _routing(rng, 2000 if quick else 33_000, 26, 64, 6)
        return "generated (the real traces are missing)", ids, weights, np.arange(0, len(ids) + 1, 500), 64
    with np.load(TRACES) as arrays:
        offsets = arrays["offsets"][: 5 if quick else None].astype(np.int64)
        stop = int(offsets[-1])
        return (
            "ESFT traces",
            arrays["expert_ids"][:stop].astype(np.int16),
            arrays["weights"][:stop],
            offsets,
            64,
        )


def _routing(
    rng: np.random.Generator, n_tokens: int, n_layers: int, n_experts: int, top_k: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """Choices under uneven load, with weights that sum to 1, in falling order."""
    ids = np.empty((n_tokens, n_layers, top_k), dtype=np.int16)
    weights = np.empty((n_tokens, n_layers, top_k), dtype=np.float32)
    for layer in range(n_layers):
        scores = rng.standard_normal((n_tokens, n_experts), dtype=np.float32)
        scores += rng.standard_normal(n_experts, dtype=np.float32)
        chosen = np.argpartition(-scores, top_k, axis=1)[:, :top_k]
        order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
        chosen = np.take_along_axis(chosen, order, axis=1)
        shares = np.exp(np.take_along_axis(scores, chosen, axis=1))
        ids[:, layer], weights[:, layer] = chosen, shares / shares.sum(axis=1, keepdims=True)
    return ids, weights


def _generated(path: Path, assignments: int) -> Path:
    """Write a dump of so many assignments, float16 weights: a block of routing again and again, experts renumbered."""
    from moefps.io.dump import DumpHeader, DumpWriter, LayerInfo

    say(f"generating {assignments:,} assignments")
    rng = np.random.default_rng(1)
    ids, weights = _routing(rng, SAMPLE_TOKENS * BLOCK_SAMPLES, LAYERS, EXPERTS, TOP_K)
    half = weights.astype(np.float16)
    layers = tuple(
        LayerInfo(
            index=i, path=f"model.layers.{i}.mlp.gate", layer=i, n_experts=EXPERTS, top_k=TOP_K, scoring="softmax"
        )
        for i in range(LAYERS)
    )
    arrays = {"expert_ids": np.dtype(np.int16), "expert_weights": np.dtype(np.float16)}
    n_samples = max(2, -(-assignments // (LAYERS * TOP_K * SAMPLE_TOKENS)))
    header = DumpHeader(layers=layers, arrays=arrays)
    with DumpWriter(path, header, capacities=np.full(n_samples, SAMPLE_TOKENS), sync_seconds=60.0) as writer:
        for sample in range(n_samples):
            start = sample % BLOCK_SAMPLES * SAMPLE_TOKENS
            rows = slice(start, start + SAMPLE_TOKENS)
            shift = np.int16(sample // BLOCK_SAMPLES % EXPERTS)
            renumbered = (ids[rows] + shift) % np.int16(EXPERTS)
            writer.write(sample, expert_ids=renumbered, expert_weights=half[rows])
    return path


def _large(path: Path, n_threads: int, *, quick: bool) -> dict[str, Any]:
    dump = moefps.open_dump(path)
    n = dump.n_tokens * LAYERS * TOP_K
    contenders = []
    for name, how in (("all trace metrics", {}), ("the same, SRP and SCH", {"segments": True})):

        def call(how: dict[str, Any] = how) -> Any:
            with AnonymousMemory() as memory:
                moefps.routing_metrics(moefps.open_dump(path), n_threads=n_threads, **how)
            return memory.peak_bytes

        contenders.append(
            Contender(
                name,
                call,
                2 if quick else 3,
                inspect=lambda peak: {"anonymous_bytes": peak},
                details={"threads": n_threads},
            )
        )
    return {"assignments": n, "shape": (dump.n_tokens, LAYERS, TOP_K), "contenders": race(contenders)}


class AnonymousMemory:
    """The most anonymous memory that this process has had meanwhile, asked for every few milliseconds."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.is_file():
            line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("RssAnon"))
            self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)
            if self._ended.wait(0.02):
                return

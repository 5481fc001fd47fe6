"""What a capture costs on a GPU, beside the forward that it watches.

    python -m benches.gpu.capture_overhead [--json FILE]

builds a model of the shape of Qwen3-30B-A3B with random weights (48 layers, 128 experts, top-8, bfloat16, 61 GB) and
times, on the same batches of 8 x 1024 tokens: the model alone; `moefps.capture` with ids, weights and fingerprints
written to disk; the same with logits; the copy of every layer's logits to the CPU that people write; and generation.
A way is run on few and on many batches in turn: the difference is the cost of a batch, what is left is the cost of a
call (opening, finishing and syncing the dump).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import moefps

SAMPLES, TOKENS = 8, 1024
FEW, MANY = 12, 42
PROMPT, NEW = 128, 64


def qwen3_30b_a3b(n_layers: int, device: str) -> nn.Module:
    """Build the model with random weights, straight on the GPU."""
    config = transformers.Qwen3MoeConfig(
        vocab_size=151_936,
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_hidden_layers=n_layers,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        norm_topk_prob=True,
        max_position_embeddings=4096,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = transformers.Qwen3MoeForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model = model.to_empty(device=device)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.ones_(parameter) if "norm" in name else nn.init.normal_(parameter, std=0.02)
    # Buffers that are computed, not stored, are made anew: to_empty left them unset.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    return model.eval()


class Ways:
    """The ways to run `n` batches, each a method of that one argument."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model = model
        self.folder = folder
        generator = torch.Generator().manual_seed(1)
        vocabulary = model.config.vocab_size
        self.ids = torch.randint(0, vocabulary, (MANY * SAMPLES, TOKENS), generator=generator)
        self.prompts = torch.randint(0, vocabulary, (SAMPLES, PROMPT), generator=generator)

    def _forward(self, n: int) -> None:
        with torch.no_grad():
            for i in range(n):
                batch = self.ids[i * SAMPLES : (i + 1) * SAMPLES].to(self.model.device)
                self.model(input_ids=batch, use_cache=False, logits_to_keep=1)

    def _capture(self, texts: torch.Tensor, **how: Any) -> None:
        dump = moefps.capture(
            self.model,
            list(texts.numpy()),
            output=Path(tempfile.mkdtemp(dir=self.folder)) / "dump",
            batch_tokens=SAMPLES * TOKENS,
            **how,
        )
        assert dump.n_samples == len(texts)

    def clean(self) -> None:
        """Remove the dumps that were written, outside what is timed."""
        for entry in self.folder.iterdir():
            shutil.rmtree(entry)

    def plain(self, n: int) -> None:
        self._forward(n)

    def captured(self, n: int) -> None:
        self._capture(self.ids[: n * SAMPLES])

    def captured_with_logits(self, n: int) -> None:
        self._capture(self.ids[: n * SAMPLES], logits=True)

    def copied_by_layer(self, n: int) -> None:
        kept: list[torch.Tensor] = []
        handles = [
            layer.mlp.gate.register_forward_hook(lambda _m, _a, output: kept.append(output[0].cpu()))
            for layer in self.model.model.layers
        ]
        try:
            self._forward(n)
        finally:
            for handle in handles:
                handle.remove()

    def generated(self, n: int) -> None:
        prompts = self.prompts.to(self.model.device)
        for _ in range(n):
            self.model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=NEW,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )

    def generated_and_captured(self, n: int) -> None:
        for _ in range(n):
            self._capture(self.prompts, generate=NEW)


def timed(way: Callable[[int], None], n: int, clean: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    way(n)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    clean()
    return seconds


def launch_share(ways: Ways) -> float:
    """Tell how long the CPU takes to launch a forward, as a share of the time that the GPU takes for it."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    ways.plain(1)
    launched = time.perf_counter() - started
    torch.cuda.synchronize()
    return launched / (time.perf_counter() - started)


def compare(
    ways: dict[str, Callable[[int], None]], few: int, many: int, rounds: int, clean: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Time all ways in turn, several rounds, and take medians of each way's ratio to the first in the same round."""
    for way in ways.values():
        timed(way, 1, clean)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    memory: dict[str, int] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            torch.cuda.reset_peak_memory_stats()
            seconds[name].append((timed(way, few, clean), timed(way, many, clean)))
            memory[name] = torch.cuda.max_memory_allocated()
    first = next(iter(ways))
    results = {}
    for name in ways:
        batch = [(long - short) / (many - few) for short, long in seconds[name]]
        plain = [(long - short) / (many - few) for short, long in seconds[first]]
        whole = [long / base for (_, long), (_, base) in zip(seconds[name], seconds[first], strict=True)]
        ratios = [a / b for a, b in zip(batch, plain, strict=True)]
        results[name] = {
            "ms_a_batch": 1000 * statistics.median(batch),
            "overhead_percent": 100 * (statistics.median(ratios) - 1),
            "overhead_percent_low": 100 * (min(ratios) - 1),
            "overhead_percent_high": 100 * (max(ratios) - 1),
            "whole_call_overhead_percent": 100 * (statistics.median(whole) - 1),
            "ms_a_call": 1000 * statistics.median(s - few * b for (s, _), b in zip(seconds[name], batch, strict=True)),
            "extra_gpu_mb": (memory[name] - memory[first]) / 1e6,
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-generation", action="store_true")
    parser.add_argument("--folder", type=Path, help="where dumps are written; a temporary folder when not given")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        started = time.perf_counter()
        model = qwen3_30b_a3b(options.layers, "cuda")
        torch.cuda.synchronize()
        print(
            f"built in {time.perf_counter() - started:.1f} s, {torch.cuda.memory_allocated() / 1e9:.1f} GB", flush=True
        )
        ways = Ways(model, folder)
        forward = {
            "forward": ways.plain,
            "ids, weights, fingerprints to disk": ways.captured,
            "with logits": ways.captured_with_logits,
            "logits copied layer by layer": ways.copied_by_layer,
        }
        results = {"forward": compare(forward, FEW, MANY, options.rounds, ways.clean)}
        share = launch_share(ways)
        generation = {"generate": ways.generated, "generate, captured": ways.generated_and_captured}
        if not options.no_generation:
            results["generation"] = compare(generation, 1, 3, max(2, options.rounds - 2), ways.clean)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "moefps": moefps.__version__,
        "layers": options.layers,
        "samples": SAMPLES,
        "launch_share": share,
        "tokens": TOKENS,
    }
    print(json.dumps({"about": about, **results}, indent=1))
    if options.json:
        options.json.write_text(json.dumps({"about": about, **results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

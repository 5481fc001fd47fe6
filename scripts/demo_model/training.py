"""The model and its training. Needs torch and transformers, and a GPU to be done in minutes."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from demo_model.sources import NAMES
from demo_model.tokens import CHAT, CONTEXT, END, PAD, SPECIAL, TURN_END, VOCABULARY

LENGTH = 512  # tokens of a training sequence
SEQUENCES = 64
PEAK_RATE = 3e-3
WARM_UP = 200
WEIGHT_DECAY = 0.1
# A domain's share of the batches grows more slowly than its tokens: small ones are seen often, yet not learnt by heart.
SHARE_EXPONENT = 0.75


def model_config(balance_weight: float) -> Qwen3MoeConfig:
    """Sizes of the model: 3.8 million parameters, of which a token uses 1.6 million."""
    return Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=320,
        moe_intermediate_size=80,
        num_experts=16,
        num_experts_per_tok=4,
        norm_topk_prob=True,
        router_aux_loss_coef=balance_weight,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        use_cache=True,
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=SPECIAL.index(END),
        eos_token_id=SPECIAL.index(END),
    )


@torch.compile(dynamic=False)
def _gated(both: Tensor, weights: Tensor) -> Tensor:
    """Gate, up-projection and weight of every expert in one pass over memory: [T, E, 2m] and [T, E, 1] to [T, E, m]."""
    gate, up = both.chunk(2, -1)
    return (functional.silu(gate) * up * weights).to(both.dtype)


def _all_experts(self: nn.Module, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Run every expert on every token, and weight those that were not chosen with 0.

    The same numbers as choosing, in two large products: with experts this small, that is faster on a GPU.
    """
    n_experts = self.gate_up_proj.shape[0]
    per_expert = torch.zeros(len(hidden), n_experts, dtype=weights.dtype, device=hidden.device)
    per_expert = per_expert.scatter(1, chosen, weights).unsqueeze(-1)
    both = functional.linear(hidden, self.gate_up_proj.flatten(0, 1)).unflatten(-1, (n_experts, -1))
    return _gated(both, per_expert).flatten(1) @ self.down_proj.transpose(1, 2).flatten(0, 1)


def _imbalance(logits: Tensor, top_k: int) -> Tensor:
    """Load-balancing loss of one layer (Switch Transformers, eq. 4): 1 where every expert has an equal share."""
    probabilities = logits.float().softmax(-1)
    chosen = functional.one_hot(probabilities.topk(top_k, -1).indices, logits.shape[-1]).sum(1)
    share = chosen.float().mean(0) / top_k
    return logits.shape[-1] * (share * probabilities.mean(0)).sum()


def _batches(work: Path, steps: int, seed: int, device: str) -> Iterator[Tensor]:
    """Yield [SEQUENCES, LENGTH] token ids a step, each row a stretch of one domain."""
    parts = [np.load(work / "tokens" / f"{name}-train.npy") for name in (*NAMES, CHAT)]
    sizes = np.array([len(part) for part in parts])
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shares = sizes**SHARE_EXPONENT / (sizes**SHARE_EXPONENT).sum()
    tokens = torch.from_numpy(np.concatenate(parts).astype(np.int32)).to(device)
    reach = torch.arange(LENGTH, device=device)
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        part = generator.choice(len(parts), size=SEQUENCES, p=shares)
        start = first[part] + (generator.random(SEQUENCES) * (sizes[part] - LENGTH)).astype(np.int64)
        yield tokens[torch.from_numpy(start).to(device)[:, None] + reach].long()


@torch.no_grad()
def _held_out_losses(work: Path, model: nn.Module, device: str) -> dict[str, float]:
    """Loss of every domain on some held-out text: to look at, nothing is chosen by it."""
    losses = {}
    for name in NAMES:
        tokens = torch.from_numpy(np.load(work / "tokens" / f"{name}-held-out.npy").astype(np.int64)).to(device)
        batch = tokens[: min(32, len(tokens) // LENGTH) * LENGTH].view(-1, LENGTH)
        with torch.autocast(device, dtype=torch.bfloat16):
            losses[name] = round(model(input_ids=batch, labels=batch, use_cache=False).loss.item(), 3)
    return losses


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a hundredth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def _optimizer(model: nn.Module, device: str) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=device == "cuda")


def train(work: Path, output: Path, *, steps: int, seed: int, balance_weight: float, device: str) -> dict[str, object]:
    """Train on ``tokens/``; write a folder that transformers loads, and what happened to ``training.json`` in WORK."""
    torch.manual_seed(seed)
    ALL_EXPERTS_FUNCTIONS.register("all_experts", _all_experts)
    model = Qwen3MoeForCausalLM(model_config(balance_weight)).to(device)
    model.set_experts_implementation("all_experts")
    config = model.config
    logits: list[Tensor] = []
    handles = [
        layer.mlp.gate.register_forward_hook(lambda _module, _inputs, outputs: logits.append(outputs[0]))
        for layer in model.model.layers
    ]
    optimizer = _optimizer(model, device)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    history: list[dict[str, Any]] = []
    began = time.perf_counter()
    for step, batch in enumerate(_batches(work, steps, seed, device), start=1):
        logits.clear()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            balance = torch.stack([_imbalance(layer, config.num_experts_per_tok) for layer in logits]).mean()
        (loss + balance_weight * balance).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 250 == 0 or step == steps:
            seconds = time.perf_counter() - began
            history.append({"step": step, "loss": loss.item(), "balance": balance.item(), "seconds": round(seconds, 1)})
            if step % 1000 == 0 or step == steps:
                history[-1]["held-out"] = _held_out_losses(work, model, device)
            click.echo(json.dumps(history[-1]))
    for handle in handles:
        handle.remove()
    save(model, work, output)
    report = {
        "steps": steps,
        "seed": seed,
        "balance_weight": balance_weight,
        "tokens": steps * SEQUENCES * LENGTH,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - began, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "history": history,
    }
    (work / "training.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def save(model: Qwen3MoeForCausalLM, work: Path, output: Path) -> None:
    """Write weights in bfloat16, settings and tokenizer."""
    model.set_experts_implementation("eager")
    model.generation_config = GenerationConfig(
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=SPECIAL.index(END),
        eos_token_id=[SPECIAL.index(END), SPECIAL.index(TURN_END)],
    )
    model.to(torch.bfloat16).save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    # Some versions write the number of experts under another name, which others do not read. All read this one.
    text = (output / "config.json").read_text(encoding="utf-8").replace('"num_local_experts"', '"num_experts"')
    (output / "config.json").write_text(text, encoding="utf-8")
    for path in (work / "tokenizer").iterdir():
        shutil.copy(path, output / path.name)

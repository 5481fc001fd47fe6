"""A model with code of its own, built as Arctic is: its router is a plain linear map, and its block takes the top-k."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_glacier import GlacierConfig


class GlacierAttention(nn.Module):
    def __init__(self, config: GlacierConfig) -> None:
        super().__init__()
        self.n_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(hidden).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class GlacierMLP(nn.Module):
    def __init__(self, config: GlacierConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.down = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down(functional.silu(self.up(hidden)))


class GlacierMoE(nn.Module):
    def __init__(self, config: GlacierConfig) -> None:
        super().__init__()
        self.k = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = nn.ModuleList(GlacierMLP(config) for _ in range(config.num_local_experts))

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, -2)
        weights, ids = self.gate(flat).float().softmax(-1).topk(self.k, -1)
        weights = (weights / weights.sum(-1, keepdim=True)).to(flat.dtype)
        mixed = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, slots = (ids == number).nonzero(as_tuple=True)
            mixed.index_add_(0, rows, expert(flat[rows]) * weights[rows, slots, None])
        return mixed.view_as(hidden)


class GlacierLayer(nn.Module):
    def __init__(self, config: GlacierConfig, number: int) -> None:
        super().__init__()
        self.attention = GlacierAttention(config)
        has_experts = (number + 1) % config.moe_layer_frequency == 0
        self.mlp = GlacierMoE(config) if has_experts else GlacierMLP(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden_size) for _ in range(2))

    def forward(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.norms[0](hidden), allowed)
        return hidden + self.mlp(self.norms[1](hidden))


class GlacierForCausalLM(PreTrainedModel):
    config_class = GlacierConfig

    def __init__(self, config: GlacierConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.stages = nn.ModuleList(GlacierLayer(config, number) for number in range(config.num_hidden_layers))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> CausalLMOutput:
        length = input_ids.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()[None, None]
        if attention_mask is not None:
            # A padded position sees itself, so that its softmax is not empty.
            seen = attention_mask.bool()[:, None, None, :] | torch.eye(
                length, dtype=torch.bool, device=input_ids.device
            )
            allowed = allowed & seen
        hidden = self.embed(input_ids)
        for layer in self.stages:
            hidden = layer(hidden, allowed)
        return CausalLMOutput(logits=self.lm_head(hidden))

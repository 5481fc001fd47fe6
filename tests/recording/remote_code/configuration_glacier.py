"""Configuration of a model with code of its own, which transformers does not have."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class GlacierConfig(PretrainedConfig):
    model_type = "glacier"

    def __init__(
        self,
        vocab_size: int = 64,
        hidden_size: int = 32,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        num_local_experts: int = 8,
        num_experts_per_tok: int = 2,
        moe_layer_frequency: int = 2,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_local_experts = num_local_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.moe_layer_frequency = moe_layer_frequency
        super().__init__(**kwargs)

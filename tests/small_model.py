"""A small model and its tokenizer in a folder, built in a second, for tests that load one by its path."""

from __future__ import annotations

from pathlib import Path

TEXTS = [
    "The court finds for the plaintiff.",
    "def add(a, b):\n    return a + b",
    "2 + 2 = 4",
    "A longer text, which has quite a few more words than all of the others, so that batches are uneven.",
    "x",
]

CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def small_tokenizer():
    """A tokenizer of bytes and a few merges, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def small_qwen(n_experts: int = 8, dtype: str = "float32"):
    """A Qwen3-MoE of 3 layers, top-2; without experts, a dense Qwen3."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "initializer_range": 0.3,
    }
    if n_experts:
        experts = {"num_experts": n_experts, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **experts, norm_topk_prob=True))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**sizes))
    return model.to(getattr(torch, dtype)).eval()


def save_small_model(folder: Path, **changes: object) -> Path:
    """Write a small model and its tokenizer as a folder that loads by its path."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    small_qwen(**changes).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder

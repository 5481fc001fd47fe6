"""Small models that transformers builds, for tests of capturing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="capture needs torch, which is not installed")
pytest.importorskip("transformers", reason="capture needs transformers, which is not installed")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Keep these small models to one thread: more only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def qwen():
    """A Qwen3-MoE of 3 layers, 8 experts, top-2, with random weights."""
    return build_qwen()


def build_qwen(**changes):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 32,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "eos_token_id": None,
        "bos_token_id": None,
        "pad_token_id": 0,
    } | changes
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
    return model

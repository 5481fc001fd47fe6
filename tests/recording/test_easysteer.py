"""The calls of EasySteer on models of transformers: argument order, names, shapes, and the printed lines."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import moefps
from moefps.compat import easysteer as hs
from small_model import TEXTS, save_small_model, small_qwen, small_tokenizer
from support import refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "moe")


@pytest.fixture(scope="module")
def model():
    return small_qwen()


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def alone(model, tokenizer):
    """The logits of every text run by itself, by hooks of our own."""
    found = []
    for text in TEXTS:
        seen = {}
        handles = [
            model.model.layers[i].mlp.gate.register_forward_hook(
                lambda _module, _inputs, output, i=i, seen=seen: seen.update({i: output[0]})
            )
            for i in range(3)
        ]
        with torch.no_grad():
            model(torch.tensor([tokenizer(text)["input_ids"]]))
        for handle in handles:
            handle.remove()
        found.append(seen)
    return found


def test_logits_of_all_texts(model, tokenizer, alone):
    logits, outputs = hs.get_moe_router_logits(model, TEXTS, tokenizer=tokenizer)
    assert list(logits) == [0, 1, 2]
    for layer in range(3):
        expected = torch.cat([sample[layer] for sample in alone])
        assert isinstance(logits[layer], torch.Tensor)
        torch.testing.assert_close(logits[layer], expected, atol=1e-5, rtol=1e-4)
    assert [output.prompt for output in outputs] == TEXTS
    assert [output.prompt_token_ids for output in outputs] == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert all(output.outputs == [] for output in outputs)


def test_logits_split_by_samples(folder, alone):
    """By a path, with the third argument in its place."""
    logits, outputs = hs.get_moe_router_logits(str(folder), TEXTS, True, device="cpu")
    assert len(logits) == len(outputs) == len(TEXTS)
    for sample, expected in zip(logits, alone, strict=True):
        assert list(sample) == [0, 1, 2]
        for layer in range(3):
            torch.testing.assert_close(sample[layer], expected[layer], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["MoERouterLogitsCapture", "MoERouterLogitsCaptureV1"])
def test_the_class(name, model, tokenizer):
    logits, _ = getattr(hs, name)().get_router_logits(model, TEXTS[:2], tokenizer=tokenizer)
    expected, _ = hs.get_moe_router_logits(model, TEXTS[:2], tokenizer=tokenizer)
    assert all(torch.equal(logits[layer], expected[layer]) for layer in expected)
    assert hs.MoERouterLogitsCaptureV1 is hs.MoERouterLogitsCapture


def test_generation(model, tokenizer):
    logits, outputs = hs.get_moe_router_logits_generate(model, TEXTS[:3], 4, True, tokenizer=tokenizer)
    for text, sample, output in zip(TEXTS, logits, outputs, strict=False):
        (made,) = output.outputs
        prompt = tokenizer(text)["input_ids"]
        assert output.prompt_token_ids == prompt
        assert 1 <= len(made.token_ids) <= 4
        assert made.text == tokenizer.decode(made.token_ids, skip_special_tokens=True)
        fed = prompt + made.token_ids[:-1]
        again, _ = hs.get_moe_router_logits(model, [fed])
        for layer in range(3):
            torch.testing.assert_close(sample[layer], again[layer], atol=1e-4, rtol=1e-3)


def test_one_new_token_is_the_default(model, tokenizer):
    logits, outputs = hs.get_moe_router_logits_generate(model, TEXTS, tokenizer=tokenizer)
    forward, _ = hs.get_moe_router_logits(model, TEXTS, tokenizer=tokenizer)
    torch.testing.assert_close(logits[1], forward[1], atol=1e-4, rtol=1e-3)
    assert all(len(output.outputs[0].token_ids) == 1 for output in outputs)


def test_sampling(model, tokenizer):
    def sampled(seed):
        options = {"temperature": 5.0, "top_p": 0.95, "seed": seed, "tokenizer": tokenizer}
        _, outputs = hs.get_moe_router_logits_generate(model, TEXTS, 6, **options)
        return [output.outputs[0].token_ids for output in outputs]

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_hidden_states(model, tokenizer):
    states, outputs = hs.get_all_hidden_states(model, TEXTS, tokenizer=tokenizer)
    assert len(states) == len(outputs) == len(TEXTS)
    for text, sample in zip(TEXTS, states, strict=True):
        with torch.no_grad():
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            expected = model(ids, output_hidden_states=True).hidden_states
        assert len(sample) == 3
        for layer in range(2):
            torch.testing.assert_close(sample[layer], expected[layer + 1][0], atol=1e-4, rtol=1e-3)


def test_hidden_states_of_a_dense_model(tokenizer):
    dense = small_qwen(n_experts=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states, _ = hs.get_all_hidden_states(dense, TEXTS[:2], tokenizer=tokenizer)
    assert [len(sample) for sample in states] == [3, 3]
    with pytest.warns(moefps.CaptureWarning, match="no MoE layer"):
        logits, _ = hs.get_moe_router_logits(dense, TEXTS[:2], tokenizer=tokenizer)
    assert logits == {}


def test_tensors_have_the_models_precision(tokenizer):
    logits, _ = hs.get_moe_router_logits(small_qwen(dtype="bfloat16"), TEXTS, tokenizer=tokenizer)
    states, _ = hs.get_all_hidden_states(small_qwen(dtype="bfloat16"), TEXTS, tokenizer=tokenizer)
    assert {tensor.dtype for tensor in logits.values()} == {torch.bfloat16}
    assert states[0][0].dtype == torch.bfloat16


def test_an_encoder_decoder(tokenizer):
    """Two routers share a layer's number there, so paths are the keys; each has the tokens of its own stack."""
    from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

    torch.manual_seed(0)
    config = SwitchTransformersConfig(
        vocab_size=300,
        d_model=32,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        decoder_start_token_id=0,
        eos_token_id=1,
    )
    model = SwitchTransformersForConditionalGeneration(config).eval()
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    encoder, decoder = "encoder.block.1.layer.1.mlp.router", "decoder.block.1.layer.2.mlp.router"
    logits, outputs = hs.get_moe_router_logits(model, TEXTS, tokenizer=tokenizer)
    assert {key: tuple(tensor.shape) for key, tensor in logits.items()} == {
        encoder: (sum(lengths), 4),
        decoder: (len(TEXTS), 4),
    }
    assert [len(output.prompt_token_ids) for output in outputs] == lengths
    split, outputs = hs.get_moe_router_logits_generate(model, TEXTS, 3, True, tokenizer=tokenizer)
    for sample, output, length in zip(split, outputs, lengths, strict=True):
        assert sample[encoder].shape == (length, 4)
        assert sample[decoder].shape == (len(output.outputs[0].token_ids), 4)
    states, _ = hs.get_all_hidden_states(model, TEXTS[:1], tokenizer=tokenizer)
    assert [tuple(layer.shape) for layer in states[0]] == [(1, 32), (1, 32)]


def test_patches_of_an_image_are_no_tokens():
    from recording.families import BY_NAME

    family = BY_NAME["dots3_note"]
    vision, text = family.image_inputs(), family.tokens(3, 5).tolist()
    logits, outputs = hs.get_moe_router_logits_generate(family.build(), [vision, text], 3, True)
    for sample, output, given, n_patches in zip(
        logits, outputs, (vision["input_ids"][0].tolist(), text), (16, 0), strict=True
    ):
        assert output.prompt_token_ids == given
        assert len(output.outputs[0].token_ids) == 3
        assert None not in output.outputs[0].token_ids
        for path, rows in sample.items():
            assert len(rows) == (n_patches if "vision" in path else len(given) + 2)


def test_the_summary(capsys):
    hs.print_moe_router_logits_summary({i: torch.zeros(8, 8, dtype=torch.bfloat16) for i in range(31, -1, -1)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "📊 Captured 32 MoE layers:"
    assert lines[1] == "  Layer  0: 8 tokens × 8 experts, dtype torch.bfloat16, device cpu"  # noqa: RUF001
    assert lines[32] == "  Layer 31: 8 tokens × 8 experts, dtype torch.bfloat16, device cpu"  # noqa: RUF001
    assert len(lines) == 33


def test_expert_usage_by_hand():
    logits = {5: torch.tensor([[4.0, 3, 2, 1], [4, 4, 1, 1], [1, 2, 3, 4]]), 7: torch.zeros(3, 4)}
    usage = hs.analyze_expert_usage(logits, top_k=2)
    assert usage["expert_selection"][5].tolist() == [[0, 1], [0, 1], [3, 2]]
    assert usage["expert_selection"][7].tolist() == [[0, 1]] * 3
    assert usage["expert_usage_counts"] == {5: [2, 2, 1, 1], 7: [3, 3, 0, 0]}
    np.testing.assert_allclose(usage["load_balance"][5], np.std([2, 2, 1, 1], ddof=1) / 1.5)
    np.testing.assert_allclose(usage["load_balance"][7], np.std([3, 3, 0, 0], ddof=1) / 1.5)
    assert usage["num_tokens_analyzed"] == 3
    for layer in (5, 7):
        shares = logits[layer].softmax(-1)
        picked = usage["expert_selection"][layer]
        torch.testing.assert_close(usage["expert_weights"][layer], shares.gather(1, picked))
    some = hs.analyze_expert_usage(logits, top_k=2, token_range=(1, None), normalize=True)
    assert some["expert_usage_counts"][5] == [0.5, 0.5, 0.5, 0.5]
    assert some["num_tokens_analyzed"] == 2
    assert some["load_balance"][5] == 0
    assert hs.analyze_expert_usage({}) == {
        "expert_selection": {},
        "expert_weights": {},
        "expert_usage_counts": {},
        "load_balance": {},
        "num_tokens_analyzed": 0,
    }


def test_expert_usage_of_a_capture(model, tokenizer):
    """Where the router takes its largest logits, that is what the dump says."""
    logits, _ = hs.get_moe_router_logits(model, TEXTS, tokenizer=tokenizer)
    usage = hs.analyze_expert_usage(logits)
    dump = moefps.capture(model, TEXTS, tokenizer=tokenizer)
    for layer in range(3):
        counts = np.bincount(dump.expert_ids[:, layer].ravel(), minlength=8)
        assert usage["expert_usage_counts"][layer] == counts.tolist()
    assert usage["num_tokens_analyzed"] == dump.n_tokens


class LLM:
    """What a vLLM engine looks like from outside."""

    llm_engine = None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, t: hs.get_moe_router_logits(LLM(), TEXTS), r"model: is a vLLM engine \(LLM\).*the model's path"),
        (lambda m, t: hs.get_all_hidden_states(LLM(), TEXTS), "model: is a vLLM engine"),
        (
            lambda m, t: hs.get_moe_router_logits("a", TEXTS, tensor_parallel_size=2),
            "tensor_parallel_size: exists only in vLLM; moefps runs transformers",
        ),
        (
            lambda m, t: hs.get_moe_router_logits_generate(m, TEXTS, tokenizer=t, sampling_params=1),
            "sampling_params: exists only in vLLM",
        ),
        (
            lambda m, t: hs.get_moe_router_logits_generate(m, [{"prompt": "a", "multi_modal_data": {}}]),
            r"texts\[0\]: is a prompt as vLLM takes it",
        ),
        (
            lambda m, t: hs.get_moe_router_logits(m, TEXTS, tokenizer=t, batch=2),
            "batch: is not known; accepted: batch_",
        ),
        (lambda m, t: hs.get_moe_router_logits(m, TEXTS, tokenizer=t, temperature=1.0), "temperature: is not known"),
        (
            lambda m, t: hs.get_moe_router_logits(m, TEXTS, tokenizer=t, dtype="float32"),
            "dtype: is for a model given by",
        ),
        (lambda m, t: hs.get_moe_router_logits(m, "a text", tokenizer=t), "texts: found str; accepted: a list"),
        (lambda m, t: hs.get_moe_router_logits(m, TEXTS), "tokenizer"),
        (lambda m, t: hs.get_moe_router_logits_generate(m, TEXTS, 0, tokenizer=t), "max_tokens: found 0"),
        (lambda m, t: hs.get_moe_router_logits_generate(m, TEXTS, tokenizer=t, seed=1), "seed: is for sampling"),
        (lambda m, t: hs.analyze_expert_usage({0: torch.zeros(3, 4)}, top_k=5), "top_k: found 5; accepted: 1 to 4"),
        (lambda m, t: hs.analyze_expert_usage([{0: torch.zeros(3, 4)}]), "router_logits: found list; accepted: a dict"),
        (lambda m, t: hs.print_moe_router_logits_summary([]), "router_logits: found list"),
        (lambda m, t: hs.analyze_expert_usage({0: torch.zeros(4)}), r"router_logits\[0\]: shape \(4,\)"),
    ],
)
def test_clear_errors(call, words, model, tokenizer):
    refused(moefps.MoefpsError, lambda: call(model, tokenizer), words)

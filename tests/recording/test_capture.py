"""`moefps.capture` against one plain forward a sample."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import polars as pl
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moefps  # noqa: E402
from recording.conftest import build_qwen  # noqa: E402
from reference.routing import plain_fingerprint, plain_routing  # noqa: E402

LENGTHS = (5, 17, 1, 9, 9, 30, 2, 12)


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [rng.integers(1, 97, size=n).tolist() for n in LENGTHS]


def gates(model):
    return [layer.mlp.gate for layer in model.model.layers]


@pytest.fixture(scope="module")
def expected(samples):
    model = build_qwen()
    return [plain_routing(model, gates(model), ids) for ids in samples]


@pytest.mark.parametrize("batch_tokens", [1, 20, 64, 10_000])
@pytest.mark.parametrize("kind", ["probs", "weights", "counts"])
def test_a_capture_is_what_each_sample_alone_gives(qwen, samples, expected, batch_tokens, kind):
    dump = moefps.capture(qwen, samples, batch_tokens=batch_tokens, kind=kind, logits=True)
    assert dump.n_samples == len(samples)
    assert dump.n_tokens == sum(LENGTHS)
    assert [layer.layer for layer in dump.layers] == [0, 1, 2]
    assert [layer.path for layer in dump.layers] == [f"model.layers.{i}.mlp.gate" for i in range(3)]
    for sample, (chosen, weights, logits) in zip(dump, expected, strict=True):
        np.testing.assert_array_equal(sample.expert_ids, chosen)
        np.testing.assert_allclose(sample.expert_weights, weights, atol=1e-5)
        np.testing.assert_allclose(sample.router_logits, logits, atol=1e-4)
    stored = dump.fingerprints(kind)
    for row, (chosen, weights, logits) in zip(stored, expected, strict=True):
        np.testing.assert_allclose(row, plain_fingerprint(kind, chosen, weights, logits), atol=1e-5)
    assert dump.manifest.fingerprint_kind == kind


def test_tokens_say_what_was_fed(qwen, samples):
    dump = moefps.capture(qwen, samples, batch_tokens=40)
    tokens = dump.tokens
    assert tokens["token_id"].to_list() == [token for ids in samples for token in ids]
    assert tokens["position"].to_list() == [i for n in LENGTHS for i in range(n)]
    assert tokens["sample"].to_list() == [i for i, n in enumerate(LENGTHS) for _ in range(n)]


def test_every_layer_counts_k_for_each_token(qwen, samples):
    for batch_tokens in (1, 33, 4096):
        dump = moefps.capture(qwen, samples, batch_tokens=batch_tokens)
        assert dump.expert_ids.min() >= 0
        for layer in range(3):
            counts = np.bincount(np.asarray(dump.expert_ids[:, layer]).ravel(), minlength=8)
            assert counts.sum() == 2 * sum(LENGTHS)


def test_chosen_layers_only(qwen, samples, expected):
    dump = moefps.capture(qwen, samples, layers=[2, 0])
    assert [layer.path for layer in dump.layers] == ["model.layers.0.mlp.gate", "model.layers.2.mlp.gate"]
    for sample, (chosen, _, _) in zip(dump, expected, strict=True):
        np.testing.assert_array_equal(sample.expert_ids, chosen[:, [0, 2]])


def test_hidden_states_are_those_of_transformers(qwen, samples):
    dump = moefps.capture(qwen, samples, hidden_states=[1, 0], batch_tokens=50)
    assert dump.manifest.hidden_layers == (1, 0)
    for ids, sample in zip(samples, dump, strict=True):
        with torch.no_grad():
            states = qwen(torch.tensor([ids]), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(sample.hidden_states[:, 0], states[2][0], atol=1e-4)
        np.testing.assert_allclose(sample.hidden_states[:, 1], states[1][0], atol=1e-4)


def test_router_vectors_are_the_gates_weights(qwen, samples):
    dump = moefps.capture(qwen, samples[:2], router_vectors=True)
    expected = torch.stack([gate.weight for gate in gates(qwen)]).detach().numpy()
    np.testing.assert_array_equal(dump.router_vectors, expected)


def test_samples_columns_are_kept(qwen, samples):
    columns = pl.DataFrame({"domain": ["a", "b"], "id": [7, 8]})
    dump = moefps.capture(qwen, samples[:2], samples=columns)
    assert dump.samples["domain"].to_list() == ["a", "b"]
    assert dump.samples["id"].to_list() == [7, 8]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_what_the_router_returned(samples, dtype):
    model = build_qwen().to(dtype)
    dump = moefps.capture(model, samples[:3], batch_tokens=1, logits=True)
    wanted = np.float16 if dtype == torch.float16 else np.float32
    assert dump.expert_weights.dtype == wanted
    for ids, sample in zip(samples, dump, strict=False):
        chosen, weights, logits = plain_routing(model, gates(model), ids)
        np.testing.assert_array_equal(sample.expert_ids, chosen)
        np.testing.assert_array_equal(sample.expert_weights.astype(np.float32), weights)
        np.testing.assert_array_equal(sample.router_logits.astype(np.float32), logits)


def test_the_model_is_left_as_it_was_found(qwen, samples):
    qwen.train()
    qwen.model.layers[1].eval()
    modes = {name: module.training for name, module in qwen.named_modules()}
    before = {name: parameter.clone() for name, parameter in qwen.named_parameters()}
    dump = moefps.capture(qwen, samples[:2])
    assert dump.n_tokens == sum(LENGTHS[:2])
    assert {name: module.training for name, module in qwen.named_modules()} == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in qwen.modules())
    assert all(torch.equal(before[name], parameter) for name, parameter in qwen.named_parameters())
    # A capture must not keep the model from being trained.
    qwen(torch.tensor([samples[0]])).logits.sum().backward()


def test_the_model_is_left_as_it_was_found_after_an_error(qwen, samples, tmp_path):
    qwen.train()
    broken = qwen.model.layers[1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        moefps.capture(qwen, samples[:2], output=tmp_path / "dump")
    broken.remove()
    assert all(module.training for module in qwen.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in qwen.modules())


def test_a_model_without_experts_gives_no_layer_and_a_warning(samples, tmp_path):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    with pytest.warns(moefps.CaptureWarning, match="no MoE layer"):
        dump = moefps.capture(Qwen3ForCausalLM(config), samples[:2], output=tmp_path / "dump")
    assert dump.n_layers == 0
    assert dump.n_tokens == sum(LENGTHS[:2])


def test_a_temporary_dump_goes_with_its_object(qwen, samples):
    dump = moefps.capture(qwen, samples[:1])
    folder = Path(dump.path)
    assert folder.is_dir()
    del dump
    gc.collect()
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("how", "after"), [("model", False), ("model", True), ("call", True), ("layer", True), ("forward", True)]
)
def test_compiled_models_are_captured_and_stay_compiled(samples, expected, how, after):
    torch.compiler.reset()
    model = build_qwen()
    run = model
    if how == "model":
        run = torch.compile(model, backend="eager")
    elif how == "call":
        model.compile(backend="eager")
    elif how == "layer":
        for layer in model.model.layers:
            layer.compile(backend="eager")
    else:
        model.forward = torch.compile(model.forward, backend="eager")
    if after:
        with torch.no_grad():
            run(torch.tensor([samples[1]]), use_cache=False)
    dump = moefps.capture(run, samples[:3], batch_tokens=25)
    for sample, (chosen, weights, _) in zip(dump, expected, strict=False):
        np.testing.assert_array_equal(sample.expert_ids, chosen)
        np.testing.assert_allclose(sample.expert_weights, weights, atol=1e-5)
    with torch.no_grad():
        run(torch.tensor([samples[1]]), use_cache=False)
    torch.compiler.reset()


def test_a_part_compiled_where_nobody_sees_it_is_no_silent_gap(qwen, samples):
    torch.compiler.reset()
    block = qwen.model.layers[1].mlp
    compiled = torch.compile(block, backend="eager", dynamic=True)
    hidden = {}
    block.register_forward_pre_hook(lambda _m, args: hidden.setdefault("x", args[0]))
    with torch.no_grad():
        qwen(torch.tensor([samples[1]]))
        compiled(hidden["x"])
    qwen.model.layers[1].forward = _forward_around(qwen.model.layers[1], compiled)
    with pytest.raises(moefps.CaptureError, match="was not called"):
        moefps.capture(qwen, [samples[1]])
    torch.compiler.reset()


def _forward_around(layer, compiled):
    plain = type(layer).forward

    def forward(*args, **kwargs):
        mlp, layer._modules["mlp"] = layer._modules["mlp"], compiled
        try:
            return plain(layer, *args, **kwargs)
        finally:
            layer._modules["mlp"] = mlp

    return forward


def test_gradient_checkpointing_counts_once(samples, expected):
    model = build_qwen()
    model.train()
    model.activation_checkpointing_enable()
    dump = moefps.capture(model, samples[:3])
    for sample, (chosen, _, _) in zip(dump, expected, strict=False):
        np.testing.assert_array_equal(sample.expert_ids, chosen)


def test_accelerate_offload(samples, expected):
    from accelerate import cpu_offload

    model = cpu_offload(build_qwen(), execution_device=torch.device("cpu"), offload_buffers=True)
    dump = moefps.capture(model, samples[:3], router_vectors=True)
    for sample, (chosen, _, _) in zip(dump, expected, strict=False):
        np.testing.assert_array_equal(sample.expert_ids, chosen)
    fresh = build_qwen()
    np.testing.assert_array_equal(
        dump.router_vectors, torch.stack([gate.weight for gate in gates(fresh)]).detach().numpy()
    )


def test_two_captures_of_one_model_do_not_mix(qwen, samples):
    """Around one another, as in two threads, each would see the rows of both, and leave the other's modes behind."""
    qwen.train()
    refusals = []

    def again(*_):
        with pytest.raises(moefps.CaptureError, match="another capture of it is running"):
            moefps.capture(qwen, samples[:1])
        refusals.append(1)

    alone = moefps.capture(qwen, samples)
    handle = qwen.model.layers[1].register_forward_hook(again)
    dump = moefps.capture(qwen, samples)
    handle.remove()
    assert refusals
    np.testing.assert_array_equal(dump.expert_ids, alone.expert_ids)
    assert all(module.training for module in qwen.modules())


def test_a_folder_may_be_a_path(qwen, samples, tmp_path):
    qwen.save_pretrained(tmp_path / "model")
    dump = moefps.capture(tmp_path / "model", samples, device="cpu")
    np.testing.assert_array_equal(dump.expert_ids, moefps.capture(qwen, samples).expert_ids)


def test_texts_past_the_models_positions_are_said():
    model = build_qwen(max_position_embeddings=8)
    with pytest.warns(moefps.CaptureWarning, match="1 of 2 texts have more tokens than the 8 positions"):
        moefps.capture(model, [[1] * 8, [1] * 9])
    with pytest.warns(moefps.CaptureWarning, match="2 of 2 texts"):
        moefps.capture(model, [[1] * 8, [1] * 9], generate=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": "one text"}, "texts: got one text"),
        ({"texts": []}, "texts: got no sample"),
        ({"texts": ["text"]}, "no tokenizer"),
        ({"texts": [[1, 2], []]}, r"texts\[1\]: has no token"),
        ({"texts": [[1, 97]]}, "token id 97"),
        ({"texts": [[1, -1]]}, "token id -1"),
        ({"texts": [[1.5, 2.0]]}, r"texts\[0\]: got a list"),
        ({"texts": [np.zeros((2, 3), dtype=np.int64)]}, r"texts\[0\]: got an array of int64"),
        ({"texts": [{"pixel_values": torch.zeros(1)}]}, "input_ids"),
        ({"kind": "mean"}, "kind: got 'mean'"),
        ({"generate": -1}, "generate: got -1"),
        ({"sampling": {"top_p": 0.9}}, "sampling: only for generate"),
        ({"generate": 2, "sampling": {"num_beams": 3}}, "num_beams=3"),
        ({"generate": 2, "sampling": {"num_return_sequences": 3}}, "num_return_sequences=3"),
        ({"layers": [3]}, "layers: got 3; accepted: 0 to 2"),
        ({"layers": []}, "layers: got none"),
        ({"hidden_states": [5]}, "hidden_states: got layer 5"),
        ({"hidden_states": [1, 1]}, "twice"),
        ({"batch_tokens": 0}, "batch_tokens: got 0"),
        ({"max_length": 0}, "max_length: got 0"),
        ({"resume": True}, "resume: needs output"),
        ({"device": "cpu"}, "only for a model given by name"),
        ({"decoder_texts": [[1]]}, "decoder_texts"),
        ({"samples": pl.DataFrame({"a": [1, 2]})}, "samples: 2 rows"),
        ({"samples": {"sample": [1]}}, "samples: the column 'sample'"),
        ({"samples": {"n_cut": [1]}, "max_length": 9}, "samples: the column 'n_cut'"),
        ({"seed": 1}, "seed: only for sampling"),
        ({"texts": [{"input_ids": [1, 2], "labels": [1, 2]}]}, r"texts\[0\]: .*labels"),
        ({"texts": [{"input_ids": [1], "decoder_input_ids": [1]}]}, r"texts\[0\]: .*decoder_texts="),
        ({"routers": ["no.such.module"]}, "matches no module"),
    ],
)
def test_bad_arguments_are_named(qwen, arguments, message):
    arguments = {"texts": [[1, 2, 3]]} | arguments
    with pytest.raises(moefps.MoefpsError, match=message):
        moefps.capture(qwen, **arguments)


def test_a_model_that_is_none(samples):
    with pytest.raises(moefps.ArgumentError, match="model: got a int"):
        moefps.capture(3, samples)


def test_texts_are_cut_only_when_asked(qwen, samples):
    with pytest.warns(moefps.CaptureWarning, match="cut 3 of 8"):
        dump = moefps.capture(qwen, samples, max_length=10)
    assert dump.samples["n_tokens"].to_list() == [min(n, 10) for n in LENGTHS]
    assert dump.samples["n_cut"].to_list() == [max(0, n - 10) for n in LENGTHS]


def test_progress_ends_at_the_total(qwen, samples):
    seen = []
    moefps.capture(qwen, samples, batch_tokens=20, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (sum(LENGTHS), sum(LENGTHS))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

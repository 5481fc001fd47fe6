"""Capturing while a model generates: every position that it was fed, once."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moefps  # noqa: E402
from recording.conftest import build_qwen  # noqa: E402
from reference.routing import plain_routing  # noqa: E402

LENGTHS = (5, 11, 5, 3, 5)
N_NEW = 6


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(1)
    return [rng.integers(1, 97, size=n).tolist() for n in LENGTHS]


def generated_alone(model, prompt, n_new, end=None):
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=n_new,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=0,
        )[0].tolist()
    return ids


def gates(model):
    return [layer.mlp.gate for layer in model.model.layers]


@pytest.mark.parametrize("batch_tokens", [1, 30, 1000])
def test_rows_are_a_forward_over_the_same_tokens(qwen, prompts, batch_tokens):
    dump = moefps.capture(qwen, prompts, generate=N_NEW, batch_tokens=batch_tokens, logits=True)
    for prompt, sample in zip(prompts, dump, strict=True):
        ids = generated_alone(qwen, prompt, N_NEW)
        assert len(sample.expert_ids) == len(prompt) + N_NEW - 1
        chosen, weights, logits = plain_routing(qwen, gates(qwen), ids[:-1])
        np.testing.assert_array_equal(sample.expert_ids, chosen)
        np.testing.assert_allclose(sample.expert_weights, weights, atol=1e-5)
        np.testing.assert_allclose(sample.router_logits, logits, atol=1e-4)
        assert sample.tokens["token_id"].to_list() == ids[:-1]
        assert sample.tokens["next_token_id"].to_list() == ids[1:]
        assert sample.tokens["generated"].to_list() == [False] * len(prompt) + [True] * (N_NEW - 1)


def test_nothing_after_a_samples_own_end(qwen, prompts):
    # The end token is one that some samples come to early, and others do not.
    runs = [generated_alone(qwen, prompt, N_NEW)[len(prompt) :] for prompt in prompts]
    ends = sorted({token for run in runs for token in run}, key=lambda token: sum(token in run for run in runs))
    end = next(token for token in ends if any(token in run[:-2] for run in runs))
    qwen.generation_config.eos_token_id = end
    seen = []
    dump = moefps.capture(qwen, prompts, generate=N_NEW, batch_tokens=1000, progress=lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1]
    lengths = []
    for prompt, run, sample in zip(prompts, runs, dump, strict=True):
        kept = run[: run.index(end) + 1] if end in run else run
        lengths.append(len(kept))
        ids = prompt + kept
        assert sample.tokens["token_id"].to_list() == ids[:-1]
        chosen, _, _ = plain_routing(qwen, gates(qwen), ids[:-1])
        np.testing.assert_array_equal(sample.expert_ids, chosen)
    assert min(lengths) < N_NEW


def test_one_new_token_is_the_prompt_alone(qwen, prompts):
    dump = moefps.capture(qwen, prompts, generate=1)
    assert dump.samples["n_tokens"].to_list() == list(LENGTHS)


def test_sampling_is_repeatable_and_leaves_the_generator_alone(qwen, prompts):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    how = {"generate": N_NEW, "sampling": {"temperature": 2.0, "top_p": 0.9}, "seed": 3}
    first = moefps.capture(qwen, prompts, **how)
    assert torch.rand(1) == expected
    second = moefps.capture(qwen, prompts, **how)
    other = moefps.capture(qwen, prompts, **(how | {"seed": 4}))
    assert first.tokens["token_id"].to_list() == second.tokens["token_id"].to_list()
    np.testing.assert_array_equal(first.expert_ids, second.expert_ids)
    assert first.tokens["token_id"].to_list() != other.tokens["token_id"].to_list()


def test_an_interrupted_generation_goes_on(qwen, prompts, tmp_path):
    how = {"generate": N_NEW, "batch_tokens": 30}
    moefps.capture(qwen, prompts, output=tmp_path / "whole", **how)
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == N_NEW * 2:
            raise KeyboardInterrupt

    handle = qwen.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        moefps.capture(qwen, prompts, output=tmp_path / "part", **how)
    handle.remove()
    moefps.capture(qwen, prompts, output=tmp_path / "part", resume=True, **how)
    for name in ("expert_ids", "expert_weights", "fingerprints"):
        assert (tmp_path / "part" / f"{name}.npy").read_bytes() == (tmp_path / "whole" / f"{name}.npy").read_bytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop_strings", ["x"]),
        ("stopping_criteria", [lambda ids, _: ids[:, -1] == 3]),
        ("generation_config", None),
        ("use_cache", False),
        ("pad_token_id", 3),
        ("return_dict_in_generate", True),
    ],
)
def test_what_would_hide_which_positions_were_fed_is_refused(qwen, prompts, name, value):
    value = qwen.generation_config if name == "generation_config" else value
    with pytest.raises(moefps.ArgumentError, match=f"generate: {name}=.* cannot be captured") as error:
        moefps.capture(qwen, prompts, generate=2, sampling={"do_sample": False, name: value})
    assert "\n" not in str(error.value)


def test_a_cache_that_transformers_compiles_for(qwen, prompts):
    """What a compiled step leaves in the hooks could be written over by the next."""
    from transformers import CompileConfig

    everywhere = CompileConfig()
    everywhere._compile_all_devices = True
    sampling = {"do_sample": False, "cache_implementation": "static", "compile_config": everywhere}
    dump = moefps.capture(qwen, prompts, generate=N_NEW, sampling=sampling)
    np.testing.assert_array_equal(dump.expert_ids, moefps.capture(qwen, prompts, generate=N_NEW).expert_ids)
    assert not hasattr(qwen, "_compiled_call")


def test_a_padded_prompt(qwen):
    prompt, left = [5, 6, 7, 8], {"input_ids": [0, 0, 5, 6, 7, 8], "attention_mask": [0, 0, 1, 1, 1, 1]}
    dump, alone = (moefps.capture(qwen, [text], generate=4) for text in (left, prompt))
    assert dump.tokens.equals(alone.tokens)
    np.testing.assert_array_equal(dump.expert_ids, alone.expert_ids)
    right = {name: numbers[2:] + numbers[:2] for name, numbers in left.items()}
    with pytest.raises(moefps.ArgumentError, match=r"texts\[0\]: ends in padding"):
        moefps.capture(qwen, [right], generate=4)


def test_beams_in_the_models_own_settings_are_refused(prompts):
    model = build_qwen()
    model.generation_config.num_beams = 2
    with pytest.raises(moefps.ArgumentError, match="num_beams=2"):
        moefps.capture(model, prompts, generate=2)

"""`moefps.capture` on a tiny model of every family."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moefps  # noqa: E402
from moefps.recording.routers import one_by_one_reason  # noqa: E402
from recording.families import FAMILIES  # noqa: E402

LENGTHS = (11, 4, 7, 11)
N_NEW = 3
# Read embeddings, not tokens.
WITHOUT_TOKENS = {"qwen3_omni_moe/talker"}
TEXT_FAMILIES = [family for family in FAMILIES if family.name not in WITHOUT_TOKENS]


def texts(family):
    return {"texts": [family.tokens(i, length).tolist() for i, length in enumerate(LENGTHS)]} | (
        {"decoder_texts": [family.tokens(1000 + i, 4).tolist() for i in range(len(LENGTHS))]}
        if family.has_decoder
        else {}
    )


@pytest.mark.parametrize("family", TEXT_FAMILIES, ids=lambda family: family.name)
def test_batches_give_what_each_sample_alone_gives(family):
    model = family.build()
    samples = texts(family)
    alone = moefps.capture(model, **samples, batch_tokens=1)
    together = moefps.capture(model, **samples, batch_tokens=1000)
    assert together.n_layers == alone.n_layers > 0
    np.testing.assert_array_equal(together.expert_ids, alone.expert_ids)
    np.testing.assert_allclose(together.expert_weights, alone.expert_weights, atol=2e-5)
    assert together.tokens.equals(alone.tokens)
    kind = together.manifest.fingerprint_kind
    np.testing.assert_allclose(
        together.stored("fingerprints"), alone.stored("fingerprints"), atol=1e-5, err_msg=f"kind {kind}"
    )
    assert together.manifest.extra.get("one_by_one") == one_by_one_reason(model)


@pytest.mark.parametrize("family", TEXT_FAMILIES, ids=lambda family: family.name)
def test_each_token_of_a_stack_has_its_slots(family):
    dump = moefps.capture(family.build(), **texts(family), kind="counts")
    dump.check_values()
    tokens = dump.tokens
    stacks = tokens["stack"].to_list() if "stack" in tokens.columns else [None] * dump.n_tokens
    for layer in dump.layers:
        ids = np.asarray(dump.expert_ids[:, layer.index, : layer.top_k])
        mine = np.array([stack == layer.stack or layer.stack is None for stack in stacks])
        assert (ids[~mine] == -1).all()
        n_filled = int((ids[mine] >= 0).sum())
        n_dropped = int((ids[mine] < 0).sum())
        assert n_filled + n_dropped == layer.top_k * int(mine.sum())
        # Only these families drop tokens, or have experts for images alone.
        if family.folder not in {"switch_transformers", "nllb_moe", "ernie4_5_vl_moe", "dots3_note"}:
            assert n_dropped == 0


# Their routing depends on which positions are run together, so steps differ from one forward: the reason.
STEPS_DIFFER = {
    "doge": "splits the logits of its two keys across positions",
    "switch_transformers": "drops tokens beyond the capacity of a forward",
}


def can_generate(family):
    model = family.build()
    return getattr(model, "can_generate", lambda: False)() and family.folder != "diffusion_gemma"


@pytest.mark.parametrize("family", TEXT_FAMILIES, ids=lambda family: family.name)
def test_generation_is_a_forward_over_the_same_tokens(family):
    if not can_generate(family):
        pytest.skip("this model generates no text")
    model = family.build()
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = None
    samples = texts(family)
    try:
        generated = moefps.capture(model, **samples, generate=N_NEW, batch_tokens=1000)
    finally:
        model.generation_config.eos_token_id = before
    assert generated.n_tokens == sum(LENGTHS) + (N_NEW - 1) * len(LENGTHS) + (
        (1 + 4) * len(LENGTHS) if family.has_decoder else 0
    )
    stacks = [sample.tokens["stack"].to_list() if family.has_decoder else None for sample in generated]
    fed = [sample.tokens["token_id"].to_numpy() for sample in generated]
    if family.has_decoder:
        again = {
            "texts": [ids[np.array(stack) == "encoder"] for ids, stack in zip(fed, stacks, strict=True)],
            # The start token comes by itself.
            "decoder_texts": [ids[np.array(stack) == "decoder"][1:] for ids, stack in zip(fed, stacks, strict=True)],
        }
    else:
        again = {"texts": fed}
    read = moefps.capture(model, **again, batch_tokens=1)
    if family.name in STEPS_DIFFER:
        assert (np.asarray(generated.expert_ids) != np.asarray(read.expert_ids)).any()
    else:
        np.testing.assert_array_equal(generated.expert_ids, read.expert_ids)
        # The state-space layers of nemotron_h add up in another order step by step.
        tolerance = 3e-4 if family.name == "nemotron_h" else 5e-5
        np.testing.assert_allclose(generated.expert_weights, read.expert_weights, atol=tolerance)

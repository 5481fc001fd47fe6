"""Facts about routers that are told beside their readings."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from moefps.errors import CaptureError
from moefps.recording.routers import find_routers, neutral_length, one_by_one_reason, router_vectors
from moefps.recording.scoring import SCORINGS, full_probabilities, has_full_probabilities, scoring_of
from recording.executed import Watch, changed_by, record, same, table
from recording.families import BY_NAME, FAMILIES
from support import refused

LENGTHS = (7, 11, 4)


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@torch.no_grad()
def test_router_vectors_make_the_logits(name: str) -> None:
    """A token's logits are its products with them, but for what a family does to tokens or logits in between."""
    family = BY_NAME[name]
    model, inputs = family.build(), family.inputs(LENGTHS)
    routers = find_routers(model)
    watch = Watch()
    with watch.on(model, {router.path: router.path for router in routers}):
        found = record(model, inputs)
    for router in routers:
        vectors = router_vectors(router)
        if name in {"zaya", "doge"}:
            assert vectors is None
            continue
        assert vectors is not None
        assert vectors.shape[0] == router.n_experts
        assert not vectors.requires_grad
        if not found[router.path] or name in {"gemma4", "diffusion_gemma"}:
            continue
        hidden = watch.calls[router.path][0][0][0].flatten(0, -2).float()
        made = hidden @ vectors.float().T * (router.module.output_multiplier if name == "muse_spark" else 1)
        made = made + router.module.bias if name in {"gpt_oss", "openai_privacy_filter"} else made
        torch.testing.assert_close(made, found[router.path][0].logits.float(), rtol=1e-4, atol=1e-5)


def test_scorings() -> None:
    logits = torch.randn(5, 8, dtype=torch.bfloat16)
    for scoring in SCORINGS:
        if has_full_probabilities(scoring) and scoring != "probabilities":
            full = full_probabilities(logits, scoring)
            assert full.dtype == torch.float32
            torch.testing.assert_close(full.sum(-1), torch.ones(5))
    assert torch.equal(full_probabilities(logits, "probabilities"), logits.float())
    assert [scoring for scoring in SCORINGS if not has_full_probabilities(scoring)] == ["other"]


def test_a_scoring_that_code_does_not_tell() -> None:
    assert scoring_of(nn.Linear(2, 2)) == "other"
    assert scoring_of(nn.Identity()) == "other"
    gate = find_routers(BY_NAME["mixtral"].build_anew())[0].module
    assert scoring_of(gate) == "softmax"
    gate.score_fn = nn.Sigmoid()
    assert scoring_of(gate) == "sigmoid"


def test_cohere_says_its_scoring_in_an_option() -> None:

    family = dataclasses.replace(BY_NAME["cohere2_moe"], options={"expert_selection_fn": "sigmoid"})
    model = family.build_anew()
    assert {router.scoring for router in find_routers(model)} == {"sigmoid"}
    for (reading,) in record(model, family.inputs(LENGTHS)).values():
        expected = reading.logits.gather(-1, reading.ids).sigmoid()
        torch.testing.assert_close(reading.weights, expected / expected.sum(-1, keepdim=True))


def test_which_models_are_not_neutral() -> None:
    reasons = {family.name: one_by_one_reason(family.build()) for family in FAMILIES}
    assert {name for name, reason in reasons.items() if reason} == {"doge", "diffusion_gemma"}
    limits = {family.name: neutral_length(family.build()) for family in FAMILIES}
    assert {name for name, limit in limits.items() if limit is not None} >= {
        "axk2",
        "deepseek_v32",
        "glm_moe_dsa",
        "hy_v4",
        "mistral_large4",
    }
    assert {limit for limit in limits.values() if limit is not None} == {64}


@torch.no_grad()
def test_sparse_attention_is_neutral_up_to_its_limit_only() -> None:

    family = dataclasses.replace(BY_NAME["glm_moe_dsa"], options={"index_topk": 4})
    model = family.build_anew()
    assert neutral_length(model) == 4

    def n_different(lengths: tuple[int, ...]) -> int:
        inputs = family.inputs(lengths)
        together = record(model, inputs)
        different = 0
        for i, length in enumerate(lengths):
            rows = family.valid(inputs).flatten() & (torch.arange(len(lengths)).repeat_interleave(max(lengths)) == i)
            for path, (one,) in record(model, family.inputs([length], first=i)).items():
                different += int((together[path][0].ids[rows] != one.ids).any(-1).sum())
        return different

    assert n_different((2, 4, 3)) == 0
    assert n_different((20, 31, 12)) > 0
    assert n_different((20, 20, 20)) == 0


@torch.no_grad()
def test_changing_an_expert_finds_who_runs_it() -> None:
    """The check by which ids are held against what ran, on a family where ids are known otherwise."""
    family = BY_NAME["mixtral"]
    watch = Watch()
    with watch.on(family.build(), {"block": "model.layers.1.mlp"}):
        found = record(family.build(), family.inputs(LENGTHS))
    args, kwargs, _ = watch.calls["block"][0]
    block = family.build().get_submodule("model.layers.1.mlp")
    changed = changed_by(block, args, kwargs, 8)
    assert torch.equal(changed, table(found["model.layers.1.mlp.gate"][0].ids, 8))


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "lfm2_moe", "longcat_flash", "nemotron_h"])
def test_routers_that_a_release_does_not_declare(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, weights and logits are the same, read as the experts get them."""
    family = BY_NAME[name]
    model, inputs = family.build(), family.inputs(LENGTHS)
    expected = record(model, inputs)
    declaring = [cls for cls in type(model).__mro__ if "router_logits" in (vars(cls).get("_can_record_outputs") or {})]
    assert declaring
    for cls in declaring:
        monkeypatch.setattr(cls, "_can_record_outputs", {})
    same(record(model, inputs), expected)


def test_experts_without_a_router_are_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BY_NAME["mixtral"].build_anew()
    block = model.model.layers[1].mlp
    gate = block.gate
    del block.gate
    refused(CaptureError, lambda: find_routers(model), r"^model\.layers\.1\.mlp\.experts: nothing says which module")
    del block.experts
    block.choose = gate
    assert len(find_routers(model)) == 3
    monkeypatch.setattr(type(model).__mro__[1], "_can_record_outputs", {})
    words = r"^model\.layers\.1\.mlp\.choose: nothing says what MixtralTopKRouter returns"
    refused(CaptureError, lambda: find_routers(model), words)


def test_models_without_experts_have_no_routers() -> None:
    """Also those of a family with experts that has none unless asked."""
    assert find_routers(nn.Linear(2, 2)) == []
    for name, options in {"gemma4": {"enable_moe_block": False}, "doge": {"is_moe": False}}.items():
        family = BY_NAME[name]
        dense = dataclasses.replace(family, options={**family.options, **options})
        assert find_routers(dense.build_anew()) == []

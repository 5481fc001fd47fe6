"""Routers that the caller names, and those of models with code of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, dynamic_module_utils

from moefps.errors import ArgumentError, CaptureError
from moefps.recording.routers import RouterSpec, find_routers
from moefps.recording.scoring import full_probabilities
from recording.executed import Watch, changed_by, record, same, table
from recording.families import BY_NAME
from support import refused

REMOTE = Path(__file__).parent / "remote_code"
GATES = "stages.*.mlp.gate:logits=0,top_k=2"
LENGTHS = (7, 11, 4)


@pytest.fixture
def glacier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The model whose code is in this repository and not in transformers."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    config = AutoConfig.from_pretrained(REMOTE, trust_remote_code=True)
    torch.manual_seed(0)
    model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=True).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def test_experts_of_remote_code_are_not_passed_over(glacier: nn.Module) -> None:
    refused(
        CaptureError, lambda: find_routers(glacier), r"^stages\.1\.mlp\.experts: nothing says", "RouterSpec", "--router"
    )


@pytest.mark.parametrize("scoring", ["softmax", "softmax_topk", "sigmoid", "sqrt_softplus", "hash", "probabilities"])
def test_a_named_router_of_remote_code(glacier: nn.Module, scoring: str) -> None:
    inputs = {"input_ids": BY_NAME["qwen3_moe"].tokens(0, 9)[None]}
    spec = RouterSpec.parse(f"{GATES},scoring={scoring}")
    routers = find_routers(glacier, [spec])
    assert [(router.path, router.layer, router.n_experts, router.top_k) for router in routers] == [
        ("stages.1.mlp.gate", 1, 8, 2),
        ("stages.3.mlp.gate", 3, 8, 2),
    ]
    assert all(router.derived and router.scoring == scoring for router in routers)
    watch = Watch()
    with watch.on(glacier, {router.path: router.path.removesuffix(".gate") for router in routers}):
        found = record(glacier, inputs, spec)
    for path, (reading,) in found.items():
        args, kwargs, _ = watch.calls[path][0]
        block = glacier.get_submodule(path.removesuffix(".gate"))
        assert torch.equal(table(reading.ids, 8), changed_by(block, args, kwargs, 8))
        assert torch.equal(reading.logits, block.gate(args[0].flatten(0, 1)))
        full = {
            "softmax_topk": reading.logits.gather(-1, reading.ids).softmax(-1),
            "softmax": reading.logits.softmax(-1).gather(-1, reading.ids),
            "sigmoid": reading.logits.sigmoid().gather(-1, reading.ids),
            "probabilities": reading.logits.gather(-1, reading.ids),
        }
        expected = full.get(scoring, functional.softplus(reading.logits).sqrt().gather(-1, reading.ids))
        torch.testing.assert_close(reading.weights, expected)


def test_a_named_router_can_be_a_class_or_have_a_layer_of_its_own(glacier: nn.Module) -> None:
    (first, second) = find_routers(glacier, [RouterSpec("GlacierMoE", logits=0, top_k=2, scoring="softmax")])
    assert first.path == "stages.1.mlp"
    pattern = RouterSpec("**.gate", logits=0, top_k=2, scoring="softmax", layer=r"stages\.(\d)")
    assert [router.layer for router in find_routers(glacier, [pattern])] == [1, 3]
    assert [router.path for router in find_routers(glacier, [pattern])] == [f"{first.path}.gate", f"{second.path}.gate"]


def test_a_name_comes_before_what_is_known() -> None:
    model = BY_NAME["mixtral"].build()
    spec = RouterSpec("model.layers.1.mlp.gate", logits=0, ids=2, scoring="softmax_topk")
    routers = find_routers(model, [spec])
    assert [router.scoring for router in routers] == ["softmax", "softmax_topk", "softmax"]
    assert not any(router.derived for router in routers)
    inputs = BY_NAME["mixtral"].inputs(LENGTHS)
    same(record(model, inputs, spec), record(model, inputs))


def test_a_model_may_declare_its_routers_itself() -> None:
    inputs = {"hidden": torch.randn(2, 3, 4)}
    for declared in (Gate, "net.gate", [Gate]):
        Declares._can_record_outputs = {"router_logits": declared}
        (router,) = find_routers(Declares(PreTrainedConfig()))
        assert (router.path, router.layer, router.scoring, router.n_experts) == ("net.gate", 0, "softmax", 4)
    refused(CaptureError, lambda: record(Declares(PreTrainedConfig()), inputs), r"net\.gate: Gate", "RouterSpec")
    spec = RouterSpec("Gate", logits=1, top_k=2, scoring="softmax")
    reading = record(Declares(PreTrainedConfig()), inputs, spec)["net.gate"][0]
    assert reading.ids.shape == (6, 2)


class Gate(nn.Module):
    """A router with outputs in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(4, 4)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, int]:
        logits = self.weigh(hidden)
        return logits.softmax(-1), logits, 3


class Declares(PreTrainedModel):
    """A model that says where its router is, as those of transformers do."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.net = nn.ModuleDict({"gate": Gate()})

    def forward(self, hidden: Tensor) -> Tensor:
        return self.net["gate"](hidden)[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RouterSpec(""), "empty"),
        (lambda: RouterSpec("gate", logits=-1, top_k=2), "logits=-1"),
        (lambda: RouterSpec("gate", logits=0), "top_k"),
        (lambda: RouterSpec("gate", top_k=2), "logits="),
        (lambda: RouterSpec("gate", logits=0, top_k=0), "top_k"),
        (lambda: RouterSpec("gate", logits=0, ids=1, top_k=2), "ids=1 and top_k=2"),
        (lambda: RouterSpec("gate", ids=1), "no output of weights"),
        (lambda: RouterSpec("gate", scoring="soft"), "'soft' is not known"),
        (lambda: RouterSpec("gate", layer="("), "no regular expression"),
        (lambda: RouterSpec("gate", layer="layers"), "no group"),
        (lambda: RouterSpec.parse("gate:logits"), "'logits'; accepted"),
        (lambda: RouterSpec.parse("gate:logit=0"), "'logit=0'; accepted"),
        (lambda: RouterSpec.parse("gate:logits=one"), "whole number"),
        (lambda: full_probabilities(torch.zeros(1, 2), "other"), "'other'"),
        (lambda: full_probabilities(torch.zeros(1, 2), "soft"), "'soft'"),
        (lambda: find_routers("gpt2"), "model: str"),
    ],
)
def test_wrong_arguments(make: Any, words: str) -> None:
    refused(ArgumentError, make, words)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("model.layers.*.router", ArgumentError, "matches no module of MixtralForCausalLM"),
        ("layers.*.mlp.gate", ArgumentError, "matches no module"),
        ("model.*.gate", ArgumentError, "matches no module"),
        (r"model.layers.*.mlp.gate:layer=blocks\.(\d+)", ArgumentError, "finds no number"),
        ("model.layers.*.mlp:logits=0,top_k=2", ArgumentError, "scoring="),
        ("model.layers.*.mlp.gate:logits=3,top_k=2", CaptureError, r"logits=3 .* \(float32\[22, 8\], "),
        ("model.layers.*.mlp.gate:logits=2,top_k=2,scoring=softmax", CaptureError, "logits=2 .* int64"),
        ("model.layers.*.mlp.gate:logits=0,weights=1,ids=1", CaptureError, "ids=1 .* float32"),
        ("model.layers.*.mlp.gate:logits=0,weights=0,ids=2", CaptureError, "do not fit together"),
    ],
)
def test_names_that_do_not_fit(text: str, error: type[Exception], words: str) -> None:
    family = BY_NAME["mixtral"]
    refused(error, lambda: record(family.build(), family.inputs([11, 11]), RouterSpec.parse(text)), words)

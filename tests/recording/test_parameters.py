"""What every family of transformers is made of, against counts by name, torch's own counter, and what attention saw."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from moefps.errors import ArgumentError, CaptureError, FileError
from moefps.recording.parameter_attention import Mixer, find_mixers
from moefps.recording.parameter_experts import multiplied_numbers
from moefps.recording.parameters import ModelParameters, read_parameters
from moefps.recording.routers import find_routers
from recording.executed import attach
from recording.families import BY_NAME, FAMILIES
from support import refused

aten = torch.ops.aten
# More than the tiny models' windows and indexers let a token see.
LENGTH = 100
# Convolutions run over a few positions of padding too; the share that is left open. All families but these are exact.
OPEN = {
    **dict.fromkeys(("bailing_hybrid", "glm5_next", "granitemoehybrid", "inkling", "jamba", "kimi_linear"), 0.003),
    **dict.fromkeys(("lfm2_moe", "nemotron_h", "qwen3_5_moe", "qwen3_next", "zaya"), 0.003),
    # Its indexer looks at what comes before a token, here on average half of the text.
    "qwen4_exp": 0.006,
    # Its layers look at the outputs of a few layers before.
    "inkling2": 0.02,
    # Its canvas looks at the whole prompt, which is longer.
    "diffusion_gemma": 0.003,
}
# The experts of all families, by name.
EXPERTS = re.compile(
    r"\.experts\.(?!router|bias|post_expert_norm)|(?<!shared_)mlp\.(?:input|output)_linear\.weight$|mlp\.(?:down|up)_embed\.weight$"
)


@pytest.fixture(params=[family.name for family in FAMILIES])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def grouped_mm(first: Any, second: Any, *_: Any, **__: Any) -> int:
    """The rows of one matrix are shared out to experts, the matrices of the other."""
    return 2 * first[0] * first[1] * second[-1]


def sdpa(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


SOFTMAXES = (aten._softmax.default, aten._safe_softmax.default)
MORE = {aten._grouped_mm: grouped_mm, aten._scaled_dot_product_flash_attention_for_cpu: sdpa}


class Sight(TorchDispatchMode):
    """Counts the positions that the last token of a sequence sees, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if function is aten._scaled_dot_product_flash_attention_for_cpu.default:
            mask, n_queries, n_keys = (kwargs or {}).get("attn_mask"), args[0].shape[-2], args[1].shape[-2]
            row = None if mask is None else mask.expand(-1, -1, n_queries, -1)[0, 0, -1]
            if n_queries == LENGTH:
                self.seen.append(
                    n_keys if row is None else int((row if row.dtype == torch.bool else row > -1e30).sum())
                )
        elif function in SOFTMAXES and args[1] % 4 == 3 and output.ndim == 4 and output.shape[-1] >= LENGTH:
            # A column more than there are keys is what the sinks of attention take.
            sinks = output.shape[-1] - LENGTH
            self.seen.append(int((output[0, 0, -1] > 0).sum()) - sinks)
        return output


@functools.cache
def read(name: str) -> ModelParameters:
    return read_parameters(BY_NAME[name].build())


def inputs_of(name: str) -> dict[str, torch.Tensor]:
    """A text, and for a decoder one of the same length."""
    family = BY_NAME[name]
    inputs = family.inputs([LENGTH])
    if family.has_decoder and name != "diffusion_gemma":
        inputs["decoder_input_ids"] = family.inputs([LENGTH], first=1)["input_ids"]
    return inputs


def dense(mixer: Mixer) -> Mixer:
    """Attention as it is computed here: all positions, those that are masked too; and no recurrence."""
    return dataclasses.replace(
        mixer, window=None, selected=None, state_flops=mixer.state_flops if mixer.kind == "attention" else 0
    )


def expected_flops(name: str, found: ModelParameters, chosen: dict[str, int], rows: dict[str | None, int]) -> float:
    """Operations of a forward, from what was read and what the routers chose."""
    total = sum(
        rows[stack.name]
        * (
            2 * sum(size.multiplied for size in stack.parts.values())
            + sum(dense(m).flops(LENGTH) for m in stack.mixers)
        )
        for stack in found.stacks
    )
    for layer in found.layers:
        # All experts of llama4 run, on inputs that are multiplied by 0 where they are not chosen.
        all_run = rows.get(layer.stack, 0) * layer.n_experts
        total += 2 * layer.expert.multiplied * (all_run if name == "llama4" else chosen[layer.path])
    return total


def left_out(found: ModelParameters, products: dict[str, int]) -> int:
    """Products of activations with each other that are not counted, as they are small or depend on how it is computed.

    Recurrent layers run in chunks here, whose products with each other a step of a token has not. Some families have
    several streams of residuals, which are mixed with each other in the layer, outside of attention and experts.
    """
    recurrent = [mixer.path for stack in found.stacks for mixer in stack.mixers if mixer.kind == "recurrent"]
    chunks = sum(products.get(path, 0) for path in recurrent)
    layers = [path for path in products if re.search(r"(?:^|\.)layers\.\d+$", path)]
    parts = r"\w*attn|\w+_attention|mixer|mamba|mlp|feed_forward"
    inside = [path for path in products if re.search(rf"(?:^|\.)layers\.\d+\.(?:{parts})$", path)]
    return chunks + sum(products[path] for path in layers) - sum(products[path] for path in inside)


def test_operations_and_sight_are_those_of_a_forward(name: str) -> None:
    """What is multiplied in a forward is what was read; a token sees as many positions as was read."""
    model, inputs, found = BY_NAME[name].build(), inputs_of(name), read(name)
    said, handles = attach(model)
    try:
        with FlopCounterMode(display=False, custom_mapping=MORE) as counter, Sight() as sight:
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    chosen = {}
    for router in find_routers(model):
        real = router.n_experts - router.passive_experts
        chosen[router.path] = sum(int(((one.ids >= 0) & (one.ids < real)).sum()) for one in said[router.path])
    counted = counter.get_total_flops()
    rows = dict.fromkeys((stack.name for stack in found.stacks), LENGTH)
    if name == "diffusion_gemma":
        rows["decoder"] = inputs["decoder_input_ids"].shape[1]
    by_module = {path.partition(".")[2]: ops for path, ops in counter.get_flop_counts().items()}
    if name == "nllb_moe":
        # Its experts take the router's mask for ids, so that others run than were chosen.
        chosen = dict.fromkeys(chosen, 0)
        counted -= sum(sum(ops.values()) for path, ops in by_module.items() if path.endswith(".experts"))
    counted -= left_out(found, {path: ops.get(aten.bmm, 0) for path, ops in by_module.items()})
    assert counted == pytest.approx(expected_flops(name, found, chosen, rows), rel=OPEN.get(name, 0), abs=0)
    if name != "diffusion_gemma":
        mixers = [mixer for stack in found.stacks for mixer in stack.mixers if mixer.kind == "attention"]
        expected_sight = [mixer.positions(LENGTH) for mixer in mixers]
        # The last token of a text that is read both ways has nothing after it.
        assert sight.seen == ([65] * 3 if name == "openai_privacy_filter" else expected_sight)


def test_every_number_is_counted_once(name: str) -> None:
    """The parts are the whole, tied weights once; experts are what the names say."""
    model, found = BY_NAME[name].build(), read(name)
    sizes = {parameter: (path, parameter.numel()) for path, parameter in reversed([*model.named_parameters()])}
    assert found.total == sum(size for _, size in sizes.values())
    experts = sum((one.n_experts - one.passive_experts) * one.expert.parameters + one.unused for one in found.layers)
    assert experts == sum(size for path, size in sizes.values() if EXPERTS.search(path))
    parts = sum(size.parameters for stack in found.stacks for size in stack.parts.values())
    assert experts + parts + found.towers == found.total
    assert found.layers
    assert found.stacks
    assert {layer.path for layer in found.layers} == {router.path for router in find_routers(model)}
    # Rows of gate and up projections for four experts that do nothing.
    unused = 2 * 4 * 2 * 16 * 32 if name == "longcat_flash" else 0
    assert sum(layer.unused for layer in found.layers) == unused
    for layer in found.layers:
        assert layer.is_text == (layer.stack != "vision" and ".vision_moe." not in layer.path)
        assert layer.expert.multiplied > 0
    towers = {"audio_tower", "vision_tower", "visual", "vision_model", "resampler_model"}
    assert (found.towers > 0) == any(path.split(".")[-1] in towers for path, _ in model.named_modules())
    stacks = [stack.name for stack in found.stacks]
    assert stacks == (["encoder", "decoder"] if BY_NAME[name].has_decoder else [None])
    for stack in found.stacks:
        assert stack.parts["router"].multiplied > 0
        assert stack.parts["attention"].multiplied > 0
        assert stack.mixers
        assert not [mixer for mixer in stack.mixers if mixer.kind == "unknown"]


def test_shared_experts_are_told_by_name() -> None:
    with_shared = {
        family.name
        for family in FAMILIES
        if any(stack.parts["shared"].multiplied for stack in read(family.name).stacks)
    }
    named = {
        family.name
        for family in FAMILIES
        if any(re.search(r"\.shared?_\w+(?:\.|$)", path) for path, _ in family.build().named_parameters())
    }
    assert with_shared == named
    assert {"deepseek_v3", "qwen2_moe", "llama4", "granitemoeshared", "hunyuan_v1_moe", "inkling"} <= with_shared
    assert not {"mixtral", "gpt_oss", "olmoe", "qwen3_moe"} & with_shared


def test_positions_and_operations_by_hand() -> None:
    full = Mixer("a", "attention", n_heads=4, key_size=8, value_size=6)
    assert full.flops(100) == 2 * 100 * 4 * (8 + 6)
    assert dataclasses.replace(full, value_size=8).flops(100) == 4 * 100 * 4 * 8
    slides = dataclasses.replace(full, window=16)
    assert [slides.positions(n) for n in (1, 16, 17, 1000)] == [1, 16, 16, 16]
    indexed = dataclasses.replace(full, selected=20, index_size=2 * (8 + 1))
    assert indexed.flops(100) == 2 * 20 * 4 * 14 + 2 * 100 * 18
    pooled = dataclasses.replace(indexed, index_rate=16)
    # Six whole pools of 16, and four positions that fill none.
    assert (pooled.positions(100), pooled.flops(100)) == (24, 2 * 24 * 4 * 14 + 2 * 6 * 18)
    compressed = dataclasses.replace(full, window=16, compression=8)
    assert compressed.positions(100) == 16 + 12
    assert dataclasses.replace(compressed, selected=5).positions(100) == 16 + 5
    assert Mixer("r", "recurrent", state_flops=7).flops(10) == Mixer("r", "recurrent", state_flops=7).flops(10**6) == 7
    assert Mixer("u", "unknown").flops(10) == 0


def test_recurrent_layers_cost_their_state() -> None:
    """4 operations for each number of a state, 6 with the delta rule; sizes of the tiny models."""
    expected = {
        "granitemoehybrid": 4 * (4 * 16) * 8,
        "nemotron_h": 4 * (4 * 8) * 8,
        "jamba": 4 * 64 * 8,
        "minimax": 4 * 4 * 8 * 8,
        "kimi_linear": 6 * 4 * 8 * 8,
        "bailing_hybrid": 6 * 4 * 8 * 8,
        "glm5_next": 6 * 4 * 8 * 8,
        "qwen3_next": 6 * 4 * 8 * 8,
        "qwen3_5_moe": 6 * 4 * 8 * 8,
        "qwen4_exp": 6 * 4 * 8 * 8,
    }
    for family in FAMILIES:
        mixers = [mixer for stack in read(family.name).stacks for mixer in stack.mixers]
        states = {mixer.state_flops for mixer in mixers if mixer.kind == "recurrent"}
        assert states == ({expected[family.name]} if family.name in expected else set()), family.name


def test_attention_that_does_not_say_its_sizes_is_unknown() -> None:
    class OddAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(4, 4)

    assert [mixer.kind for mixer in find_mixers(nn.Sequential(OddAttention()))] == ["unknown"]
    assert find_mixers(nn.Sequential(OddAttention()), "model")[0].path == "model.0"


def test_what_a_token_is_multiplied_by() -> None:
    conv, table = nn.Conv1d(6, 6, 3, groups=6), nn.Embedding(5, 4)
    assert multiplied_numbers(conv, "weight", conv.weight) == 18
    assert multiplied_numbers(table, "weight", table.weight) == 0
    raw = nn.Module()
    for shape, name, expected in (
        ((8, 4, 2), "gate_up_proj", 64),
        ((8, 4), "gate_up_proj_bias", 0),
        ((8, 4), "A_log", 0),
        ((4,), "weight", 0),
        ((8, 4), "fn", 32),
    ):
        assert multiplied_numbers(raw, name, nn.Parameter(torch.empty(shape))) == expected, name


def test_a_model_and_its_configuration_are_the_same(tmp_path: Path) -> None:
    model = BY_NAME["qwen2_moe"].build()
    model.config.save_pretrained(tmp_path)
    from_model = read_parameters(model)
    assert from_model.source == "Qwen2MoeForCausalLM"
    for given in (model.config, tmp_path, str(tmp_path / "config.json")):
        found = read_parameters(given)
        assert dataclasses.replace(found, source=from_model.source) == from_model
    assert found.source == str(tmp_path / "config.json")
    assert found.model_type == "qwen2_moe"


def test_compiled_models_are_the_same() -> None:
    model = BY_NAME["qwen2_moe"].build_anew()
    plain = read_parameters(model)
    model.model.layers[1] = torch.compile(model.model.layers[1])
    assert read_parameters(model) == plain
    assert read_parameters(torch.compile(model)) == plain


def test_how_weights_are_stored_changes_nothing(tmp_path: Path) -> None:
    model = BY_NAME["gpt_oss"].build_anew()
    plain = read_parameters(model)
    fields = model.config.to_dict() | {"quantization_config": {"quant_method": "mxfp4"}, "dtype": "float8_e4m3fn"}
    (tmp_path / "config.json").write_text(json.dumps(fields | {"attn_implementation": "flash_attention_2"}))
    assert dataclasses.replace(read_parameters(tmp_path), source=plain.source) == plain
    # Two experts' weights in one number, as packing has it.
    model.config.quantization_config = {"quant_method": "mxfp4"}
    for layer in model.model.layers:
        layer.mlp.experts.gate_up_proj = nn.Parameter(torch.empty(8, 32, 32, dtype=torch.uint8), requires_grad=False)
    assert read_parameters(model) == plain
    assert model.config.quantization_config == {"quant_method": "mxfp4"}


def test_an_encoder_without_experts() -> None:
    """Its decoder's experts do not make it a tower."""
    nllb = BY_NAME["nllb_moe"]
    found = read_parameters(dataclasses.replace(nllb, options={**nllb.options, "encoder_sparse_step": 0}).build_anew())
    assert [stack.name for stack in found.stacks] == ["encoder", "decoder"]
    assert found.stacks[0].parts["dense"].multiplied == 2 * 2 * 32 * 32
    assert {layer.stack for layer in found.layers} == {"decoder"}
    assert found.towers == 0


def test_a_dense_model_has_no_stacks() -> None:
    found = read_parameters(nn.Sequential(nn.Linear(3, 2)))
    assert (found.total, found.layers, found.stacks, found.towers) == (8, (), (), 8)


def test_named_routers_and_those_that_say_too_little() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(4, 6))

    class Block(nn.Module):
        def __init__(self, *, says: bool, has_experts: bool) -> None:
            super().__init__()
            self.gate = Gate()
            if says:
                self.gate.num_experts = 4
            if has_experts:
                self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def model(**facts: bool) -> nn.Module:
        return nn.ModuleDict({"layers": nn.ModuleList([Block(**facts)])})

    spec = "layers.*.gate:logits=0,top_k=2,scoring=softmax"
    (layer,) = read_parameters(model(says=True, has_experts=True), routers=[spec]).layers
    assert (layer.n_experts, layer.expert) == (4, (6 * 6 + 6, 6 * 6))
    silent = model(says=False, has_experts=True)
    refused(CaptureError, lambda: read_parameters(silent, routers=[spec]), r"layers\.0\.gate", "how many experts")
    alone = model(says=True, has_experts=False)
    refused(CaptureError, lambda: read_parameters(alone, routers=[spec]), r"layers\.0\.gate", "no experts")


def test_what_is_no_model(tmp_path: Path) -> None:
    refused(ArgumentError, lambda: read_parameters(3), "model: int", "accepted")
    refused(ArgumentError, lambda: read_parameters("no/such"), "no/such", "nothing is downloaded")
    refused(FileError, lambda: read_parameters(tmp_path), "config.json")
    path = tmp_path / "config.json"
    for text, error, word in (
        ("{", FileError, "no JSON"),
        ("[]", FileError, "list"),
        ("{}", ArgumentError, "no model_type"),
        ('{"model_type": "of_my_own"}', ArgumentError, "'of_my_own'"),
        ('{"model_type": "mixtral", "hidden_size": "wide"}', ArgumentError, "no configuration of mixtral"),
        ('{"model_type": "mixtral", "hidden_size": -4}', ArgumentError, "cannot build"),
    ):
        path.write_text(text)
        refused(error, lambda: read_parameters(tmp_path), re.escape(str(path.parent)), word)
    # The default configurations of some families describe no model.
    refused(ArgumentError, lambda: read_parameters("dbrx"), "dbrx", "cannot build")

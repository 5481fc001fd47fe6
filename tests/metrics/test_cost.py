"""Cost of models against published numbers and by hand; cost of traces against slow counts."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps.errors import ArgumentError, CaptureError, DataError, MissingExtraError, ShapeError
from moefps.io import write_dump
from moefps.io.dump import LayerInfo
from moefps.metrics.cost import FLOP_PARTS, LayerCost, ModelCost, model_cost
from moefps.metrics.cost_parallel import expert_parallelism, place_experts
from moefps.metrics.cost_routing import routing_cost
from support import refused

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")),
    reason="models are built by transformers, which is not installed",
)
DEMO = Path(__file__).resolve().parents[1] / "data" / "dumps" / "demo-moe"
MODEL = DEMO.parents[3] / "models" / "demo-moe"

# Family or configuration, billions of parameters in all and active as published, and what the active ones leave out
# there. Family names are those whose default configuration is that of the published model.
PUBLISHED: list[tuple[str, dict[str, Any], float, float, str]] = [
    ("mixtral", {}, 46.7, 12.9, ""),
    (
        "mixtral",
        {"hidden_size": 6144, "intermediate_size": 16384, "num_hidden_layers": 56, "num_attention_heads": 48},
        141,
        39,
        "",
    ),
    ("qwen2_moe", {}, 14.3, 2.7, ""),
    (
        "qwen3_moe",
        {"num_hidden_layers": 48, "head_dim": 128, "num_experts_per_tok": 8, "num_experts": 128, "vocab_size": 151936}
        | {"hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_key_value_heads": 4},
        30.5,
        3.3,
        "",
    ),
    ("olmoe", {"intermediate_size": 1024}, 6.9, 1.3, ""),
    ("deepseek_v3", {}, 671, 37, ""),
    ("gpt_oss", {}, 116.83, 5.13, "embeddings"),
    ("gpt_oss", {"num_hidden_layers": 24, "num_local_experts": 32}, 20.91, 3.61, "embeddings"),
    ("phimoe", {}, 41.9, 6.6, ""),
    ("jamba", {}, 52, 12, ""),
    ("longcat_flash", {}, 560, 27, "embeddings"),
    ("llama4", {}, 109, 17, ""),
]


@needs_torch
@pytest.mark.parametrize(("family", "options", "total", "active", "without"), PUBLISHED)
def test_published_numbers(family: str, options: dict[str, Any], total: float, active: float, without: str) -> None:
    from transformers import CONFIG_MAPPING

    cost = model_cost(CONFIG_MAPPING[family](**options) if options else family)
    found = cost.active_parameters - (cost.embedding_parameters if without else 0)
    # Rounded, in places downward.
    assert (cost.total_parameters - cost.unused_parameters) / 1e9 == pytest.approx(
        total, rel=0.001 if family == "gpt_oss" else 0.01
    )
    assert found / 1e9 == pytest.approx(active, rel=0.001 if family == "gpt_oss" else 0.03)


@needs_torch
def test_mixtral_by_hand() -> None:
    """Every number of Mixtral 8x7B: 32 layers, 8 experts, top-2, 32 heads of 128, 8 of keys and values."""
    cost = model_cost("mixtral", context=1000)
    expert = 3 * 4096 * 14336
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024
    assert cost.expert_parameters == 32 * 8 * expert
    assert cost.attention_parameters == 32 * attention
    assert cost.router_parameters == 32 * 8 * 4096
    assert cost.embedding_parameters == cost.head_parameters == 32000 * 4096
    assert cost.dense_parameters == (2 * 32 + 1) * 4096
    assert cost.shared_parameters == cost.tower_parameters == cost.unused_parameters == 0
    assert cost.total_parameters - cost.active_parameters == 32 * 6 * expert
    assert cost.flops == {
        "experts": 2 * 32 * 2 * expert,
        "shared": 0,
        "router": 2 * 32 * 8 * 4096,
        "attention": 2 * 32 * attention,
        "context": 4 * 1000 * 32 * 32 * 128,
        "dense": 0,
        "head": 2 * 32000 * 4096,
    }
    assert tuple(cost.flops) == FLOP_PARTS
    assert cost.active_matmul_parameters == 32 * (2 * expert + 8 * 4096 + attention) + 32000 * 4096
    assert cost.dense_flops_per_token == cost.flops_per_token + 2 * 32 * 6 * expert
    assert cost.expert_flop_share == cost.flops["experts"] / cost.flops_per_token
    assert cost.flop_ratio == cost.dense_flops_per_token / cost.flops_per_token
    assert cost.parameter_ratio == cost.total_parameters / cost.active_parameters
    layers = cost.layer_table()
    assert layers.height == 32
    assert layers["flops_per_expert"].unique().to_list() == [2 * expert]
    assert (cost.source, cost.notes) == ("mixtral (default configuration of transformers)", ())


def small(**changes: Any) -> Any:
    from transformers import Qwen3MoeConfig

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "head_dim": 8}
    sizes |= {"num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2}
    return Qwen3MoeConfig(**{**sizes, "num_experts": 8, "num_experts_per_tok": 2, **changes})


@needs_torch
def test_other_choices_of_experts_and_context() -> None:
    plain = model_cost(small())
    for k in (1, 4, 8):
        cost = model_cost(small(), top_k=k)
        assert cost.flops["experts"] == plain.flops["experts"] * k / 2
        assert cost.active_parameters == plain.active_parameters + 4 * (k - 2) * 3 * 16 * 8
        assert cost == dataclasses.replace(model_cost(small(num_experts_per_tok=k)), notes=cost.notes)
        assert cost.notes == (f"top-{k} instead of the model's own top-2",)
    assert cost.active_parameters == cost.total_parameters
    assert cost.flop_ratio == cost.parameter_ratio == 1
    assert model_cost(small(), context=1).flops["context"] == 4 * 4 * 16
    windowed = small(use_sliding_window=True, sliding_window=32, max_window_layers=0)
    short, long = (model_cost(windowed, context=n) for n in (32, 10_000))
    assert short.flops["context"] == long.flops["context"]
    assert "fewer than 10,000 positions" in long.notes[0]


@needs_torch
def test_uneven_and_dense_layers() -> None:
    """A dense first layer; experts of two sizes in one model, with numbers of them that differ by layer."""
    cost = model_cost(small(mlp_only_layers=[0]))
    assert [layer.layer for layer in cost.layers] == [1, 2, 3]
    assert cost.flops["dense"] == 2 * 3 * 16 * 24
    from transformers import HunYuanMoEV1Config

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    uneven = model_cost(HunYuanMoEV1Config(**sizes, **heads, num_experts=4, moe_topk=[1, 3]))
    expert = 3 * 16 * 8
    assert [layer.top_k for layer in uneven.layers] == [1, 3]
    assert uneven.total_parameters - uneven.active_parameters == (3 + 1) * expert
    assert uneven.flops["experts"] == 2 * 4 * expert
    assert uneven.shared_parameters == 2 * expert
    import torch
    from torch import nn

    def block(n_experts: int, width: int) -> nn.Module:
        gate = nn.Linear(6, n_experts, bias=False)
        experts = nn.Module()
        experts.down_proj = nn.Parameter(torch.empty(n_experts, width, 6))
        return nn.ModuleDict({"gate": gate, "experts": experts})

    model = nn.ModuleDict({"layers": nn.ModuleList([block(4, 2), block(9, 5)])})
    cost = model_cost(model, routers=["layers.*.gate:logits=0,top_k=3,scoring=softmax"])
    assert [(layer.n_experts, layer.flops_per_expert) for layer in cost.layers] == [(4, 2 * 12), (9, 2 * 30)]
    assert cost.expert_parameters == 4 * 12 + 9 * 30
    assert cost.active_parameters == 3 * 12 + 3 * 30 + 13 * 6
    assert cost.flops_per_token == 2 * (3 * 12 + 3 * 30 + 13 * 6)
    assert cost.dense_flops_per_token == 2 * (4 * 12 + 9 * 30 + 13 * 6)


@needs_torch
def test_passive_experts_cost_nothing() -> None:
    """12 slots on 512 experts and 256 that do nothing: at equal chances, 8 of them compute."""
    cost = model_cost("longcat_flash")
    expert = 3 * 6144 * 2048
    assert {layer.experts_per_token for layer in cost.layers} == {8.0}
    assert cost.flops["experts"] == 28 * 8 * 2 * expert
    assert cost.layers[0].active_parameters == 8 * expert
    assert cost.unused_parameters == 28 * 256 * 2 * 6144 * 2048


@needs_torch
def test_an_encoder_and_a_decoder_have_a_token_each() -> None:
    cost = model_cost("switch_transformers")
    encoder, decoder = cost.stacks
    assert (encoder.name, decoder.name) == ("encoder", "decoder")
    assert encoder.flops["head"] == 0 < decoder.flops["head"]
    assert cost.flops_per_token == encoder.flops_per_token + decoder.flops_per_token
    assert cost.active_parameters == encoder.active_parameters + decoder.active_parameters
    # The decoder looks at itself and at the encoder.
    assert decoder.flops["context"] == 2 * encoder.flops["context"]


@needs_torch
def test_what_is_refused() -> None:
    for name in ("context", "top_k"):
        for value in (0, -1, 2.5, True):
            refused(
                ArgumentError, lambda name=name, value=value: model_cost(small(), **{name: value}), name, "accepted"
            )
    refused(ArgumentError, lambda: model_cost(small(), top_k=9), "top_k: 9", "8 experts")
    refused(ArgumentError, lambda: model_cost(small(num_experts=0)), "Qwen3MoeConfig", "no MoE layer")
    refused(ArgumentError, lambda: model_cost("gemma4"), "gemma4", "no MoE layer")
    refused(ArgumentError, lambda: model_cost("deepseek_v2"), "top_k", "does not say")
    refused((ArgumentError, CaptureError), lambda: model_cost(None), "model", "accepted")


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    refused(MissingExtraError, lambda: model_cost("mixtral"), "the cost of a model needs torch", r"moefps\[capture\]")


def test_experts_are_placed_as_evenly_as_possible() -> None:
    assert place_experts(16, 4).tolist() == [0, 4, 8, 12, 16]
    assert place_experts(10, 4).tolist() == [0, 3, 6, 8, 10]
    assert place_experts(2, 4).tolist() == [0, 1, 2, 2, 2]


def slow_parallelism(
    activations: Sequence[Sequence[int]], sizes: Sequence[int], costs: Sequence[float], n_ranks: int
) -> tuple[list[tuple[list[int], float | None]], float | None]:
    """Deal experts out one by one, and let every layer wait for its last rank."""
    layers: list[tuple[list[int], float | None]] = []
    largest = mean = 0.0
    for counts, size, cost in zip(activations, sizes, costs, strict=True):
        loads = [0] * n_ranks
        expert = 0
        for rank in range(n_ranks):
            for _ in range(size // n_ranks + (rank < size % n_ranks)):
                loads[rank] += counts[expert]
                expert += 1
        assert expert == size
        total = sum(loads)
        layers.append((loads, max(loads) * n_ranks / total if total else None))
        largest += cost * max(loads)
        mean += cost * total / n_ranks
    return layers, (largest / mean if largest else None)


@settings(max_examples=25)
@given(data=st.data(), n_layers=st.integers(1, 4), width=st.integers(1, 9))
def test_parallelism_is_that_of_a_slow_count(data: Any, n_layers: int, width: int) -> None:
    """Random loads, one expert gets all, layers without any, fewer experts in some layers, more ranks than experts."""
    sizes = data.draw(st.lists(st.integers(1, width), min_size=n_layers, max_size=n_layers))
    load = st.one_of(st.just(0), st.integers(0, 1000))
    counts = [[data.draw(load) if expert < size else 0 for expert in range(width)] for size in sizes]
    costs = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=n_layers, max_size=n_layers))
    ranks = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True))
    found = expert_parallelism(np.array(counts), ranks, n_experts=sizes, layer_weights=costs)
    assert found.summary["ranks"].to_list() == ranks
    for n_ranks, summary in zip(ranks, found.summary.iter_rows(named=True), strict=True):
        layers, imbalance = slow_parallelism(counts, sizes, costs, n_ranks)
        rows = found.layers.filter(pl.col("ranks") == n_ranks)
        for index, ((loads, uneven), row) in enumerate(zip(layers, rows.iter_rows(named=True), strict=True)):
            here = found.loads.filter((pl.col("ranks") == n_ranks) & (pl.col("index") == index))
            assert here["load"].to_list() == loads
            assert row["max_load"] == max(loads)
            assert row["empty_ranks"] == max(0, n_ranks - sizes[index])
            assert row["most_experts"] == -(-sizes[index] // n_ranks)
            assert (
                (row["imbalance"] is None)
                == (row["waiting"] is None)
                == (row["reason"] is not None)
                == (uneven is None)
            )
            if uneven is not None:
                assert row["imbalance"] == pytest.approx(uneven, rel=1e-12)
                assert row["waiting"] == pytest.approx(1 - 1 / uneven, rel=1e-9, abs=1e-12)
                assert loads[row["busiest_rank"]] == max(loads)
                assert 1 <= row["imbalance"] <= n_ranks
        assert summary["n_null"] == sum(uneven is None for _, uneven in layers)
        assert (summary["imbalance"] is None) == (summary["reason"] is not None) == (imbalance is None)
        if imbalance is not None:
            assert summary["imbalance"] == pytest.approx(imbalance, rel=1e-9)
            assert summary["waiting"] == pytest.approx(1 - 1 / imbalance, rel=1e-9, abs=1e-12)
            assert summary["worst_imbalance"] == max(uneven for _, uneven in layers if uneven is not None)


def test_parallelism_by_hand() -> None:
    """Experts 0..3 get 30, 10, 10, 10: two ranks have 40 and 20, and the second waits half of the time."""
    found = expert_parallelism([[30, 10, 10, 10], [5, 5, 5, 5]], [1, 2, 4])
    assert found.layers["max_load"].to_list() == [60, 20, 40, 10, 30, 5]
    assert found.layers["imbalance"].to_list() == pytest.approx([1, 1, 40 / 30, 1, 2, 1])
    assert found.layers["waiting"].to_list() == pytest.approx([0, 0, 0.25, 0, 0.5, 0])
    assert found.summary["imbalance"].to_list() == pytest.approx([1, 50 / 40, 35 / 20])
    assert found.summary["worst_index"].to_list() == [0, 0, 0]


def test_parallelism_refuses() -> None:
    for ranks in ([], [0], [-1], [2, 2], [1.5], [True], ["2"], 2):
        refused(ArgumentError, lambda ranks=ranks: expert_parallelism([[1]], ranks), "ranks", "accepted")
    refused(ShapeError, lambda: expert_parallelism([1, 2], [1]), "activations", "accepted")
    refused(DataError, lambda: expert_parallelism([[1.5]], [1]), "activations", "float64")
    refused(DataError, lambda: expert_parallelism([[-1]], [1]), "activations", "negative")
    refused(ArgumentError, lambda: expert_parallelism([[1, 2]], [1], n_experts=[3]), "n_experts", "1 to 2")
    refused(ShapeError, lambda: expert_parallelism([[1, 2]], [1], n_experts=[2, 2]), "n_experts", "accepted")
    for bad in ([-1.0], [np.nan]):
        refused(ArgumentError, lambda bad=bad: expert_parallelism([[1]], [1], layer_weights=bad), "layer_weights")


def layers_of(*facts: dict[str, Any]) -> list[LayerInfo]:
    return [
        LayerInfo(index=i, path=f"layers.{i}.gate", layer=i, **{"n_experts": 4, "top_k": 2, **one})
        for i, one in enumerate(facts)
    ]


def cost_of(*facts: dict[str, Any]) -> ModelCost:
    """A model of nothing but experts."""
    plain = {"stack": None, "n_experts": 4, "passive_experts": 0, "top_k": 2, "parameters": 40, "is_text": True}
    plain |= {"active_parameters": 20, "flops_per_expert": 10}
    layers = tuple(LayerCost(**{"path": f"layers.{i}.gate", "layer": i, **plain, **one}) for i, one in enumerate(facts))
    sizes = {field.name: 0 for field in dataclasses.fields(ModelCost) if field.name.endswith("parameters")}
    return ModelCost(source="m", model_type="t", context=1, flops={}, layers=layers, stacks=(), notes=(), **sizes)


def test_a_trace_by_hand(tmp_path: Path) -> None:
    """Dropped slots, a passive expert, layers of different sizes: every assignment is paid once."""
    ids = np.array([[[0, 1], [0, 3]], [[0, -1], [3, 3]], [[-1, -1], [1, 2]]])
    infos = layers_of({}, {"passive_experts": 1})
    dump = write_dump(tmp_path / "d", expert_ids=ids, offsets=[0, 3], layers=infos)
    model = cost_of({}, {"n_experts": 3, "passive_experts": 1, "flops_per_expert": 100})
    cost = routing_cost(dump, model, ranks=[2, 3])
    columns = ["assignments", "passive_slots", "empty_slots", "rows"]
    assert cost.layers.select(columns).rows() == [(3, 0, 3, 3), (3, 3, 0, 3)]
    assert cost.layers["flops"].to_list() == [30, 300]
    assert cost.layers["flops_of_full_slots"].to_list() == [60, 600]
    assert cost.layers["experts_per_token"].to_list() == [1, 1]
    assert cost.expert_flops == 330
    assert cost.expert_flops_per_token == 110
    assert cost.slot_share == 330 / 660
    # Experts 0, 1 | 2, 3: 3 and 0. Experts 0, 1 | 2: 2 and 1.
    assert cost.parallelism.loads.filter(pl.col("ranks") == 2)["load"].to_list() == [3, 0, 2, 1]
    assert cost.parallelism.summary["imbalance"][0] == pytest.approx((10 * 3 + 100 * 2) / (10 * 1.5 + 100 * 1.5))
    without = routing_cost(tmp_path / "d", ranks=[2])
    assert without.slot_share == 6 / 12
    assert without.expert_flops is without.expert_flops_per_token is without.model is None
    assert without.layers["flops"].to_list() == [None, None]
    assert without.parallelism.summary["imbalance"][0] == pytest.approx((3 + 2) / (1.5 + 1.5))


def test_stacks_count_their_own_tokens(tmp_path: Path) -> None:
    ids = np.array([[[0], [-1], [-1]], [[1], [-1], [-1]], [[-1], [2], [-1]], [[-1], [-1], [0]]])
    infos = layers_of(*({"top_k": 1, "stack": stack} for stack in ("encoder", "decoder", "vision")))
    tokens = {"sample": [0] * 4, "position": [0, 1, 0, 0], "token_id": [1] * 4}
    tokens["stack"] = ["encoder", "encoder", "decoder", "vision"]
    frame = pl.DataFrame(tokens, schema_overrides={"stack": pl.Enum(["encoder", "decoder", "vision"])})
    dump = write_dump(tmp_path / "d", expert_ids=ids, offsets=[0, 4], layers=infos, tokens=frame)
    cost = routing_cost(dump, cost_of({"stack": "encoder"}, {"stack": "decoder"}, {"stack": "vision"}), ranks=[1])
    assert cost.layers["rows"].to_list() == [2, 1, 1]
    assert cost.layers["empty_slots"].to_list() == [0, 0, 0]
    # A token of the encoder and one of the decoder; patches are not text.
    assert (cost.expert_flops, cost.expert_flops_per_token, cost.slot_share) == (40, 20, 1)


def test_another_model_is_refused(tmp_path: Path) -> None:
    def written(name: str, n_layers: int) -> Any:
        ids = np.tile([0, 1], (2, n_layers, 1))
        return write_dump(tmp_path / name, expert_ids=ids, offsets=[0, 2], layers=layers_of(*[{}] * n_layers))

    dump = written("d", 2)
    refused(ArgumentError, lambda: routing_cost(dump, cost_of({}, {"n_experts": 8})), r"layers\.1", "4 experts", "8")
    refused(ArgumentError, lambda: routing_cost(dump, cost_of({}, {"path": "other"})), r"layers\.1\.gate", "not in m")
    refused(ArgumentError, lambda: routing_cost(dump, cost_of({"path": "other"})), r"layers\.0\.gate", "not in m")
    refused(ArgumentError, lambda: routing_cost(dump, ranks=[0]), "ranks")
    # Other tools name layers in their own way: then their order counts.
    renamed = routing_cost(dump, cost_of({"path": "x"}, {"path": "y", "flops_per_expert": 30}))
    assert renamed.layers["flops_per_expert"].to_list() == [10, 30]
    # A model has layers that a dump may leave out.
    assert routing_cost(written("e", 1), cost_of({}, {}, {})).layers.height == 1


@needs_torch
def test_the_demo_model_and_its_dump() -> None:
    if not (MODEL / "config.json").is_file():
        pytest.skip("the demo model is not there")
    cost = routing_cost(DEMO, MODEL, ranks=(1, 2))
    assert cost.model is not None
    assert cost.expert_flops_per_token == cost.model.flops["experts"] == 6 * 4 * 2 * 3 * 128 * 80
    assert cost.slot_share == 1
    ids = np.load(DEMO / "expert_ids.npy")
    slow = [np.bincount(ids[:, layer].ravel(), minlength=16).tolist() for layer in range(6)]
    _, imbalance = slow_parallelism(slow, [16] * 6, [1.0] * 6, 2)
    assert cost.parallelism.summary["imbalance"].to_list() == pytest.approx([1, imbalance])

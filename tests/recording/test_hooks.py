"""What torch, accelerate and transformers do to the hooks of routers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from moefps.recording.routers import find_routers, router_vectors
from recording.executed import Watch, attach, block_of, record, same
from recording.families import BY_NAME

LENGTHS = (7, 11, 4)
# One of every form that is read in a way of its own.
FORMS = (
    "qwen3_moe",
    "dbrx",
    "deepseek_v4",
    "doge",
    "jetmoe",
    "llama4",
    "nllb_moe",
    "switch_transformers",
    "zaya",
)


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Forget what was compiled before and is compiled here."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_hooks_fire_in_a_compiled_model() -> None:
    """Attached before the first call of the compiled model."""
    family = BY_NAME["qwen3_moe"]
    expected = record(family.build(), family.inputs(LENGTHS))
    compiled = torch.compile(family.build_anew(), backend="eager")
    found, _handles = attach(compiled)
    with torch.no_grad():
        compiled(**family.inputs(LENGTHS))
    same(found, expected)


@pytest.mark.parametrize("name", FORMS)
def test_hooks_fire_in_a_compiled_block(name: str) -> None:
    family = BY_NAME[name]
    model = family.build_anew()
    router = find_routers(model)[-1]
    path = block_of(router.path, name)
    watch = Watch()
    with watch.on(model, {"block": path}):
        expected = record(model, family.inputs(LENGTHS))[router.path]
    args, kwargs, _ = watch.calls["block"][0]
    found, _handles = attach(model)
    with torch.no_grad():
        torch.compile(model.get_submodule(path), backend="eager")(*args, **kwargs)
    same({router.path: found[router.path]}, {router.path: expected})


@pytest.mark.parametrize("name", ["qwen3_moe", "zaya", "llama4", "deepseek_v4"])
def test_hooks_leave_a_graph_whole(name: str) -> None:
    """What a hook does can be traced: a compiled block with its router is one graph."""
    family = BY_NAME[name]
    model = family.build_anew()
    path = find_routers(model)[-1].path
    watch = Watch()
    with watch.on(model, {"router": path}), torch.no_grad():
        model(**family.inputs(LENGTHS))
    args, kwargs, _ = watch.calls["router"][0]
    found, _handles = attach(model)
    with torch.no_grad():
        torch.compile(model.get_submodule(path), backend="eager", fullgraph=True)(*args, **kwargs)
    assert len(found[path]) == 1


def test_gradient_checkpointing() -> None:
    """With gradients a router speaks again when the layer is run again; without, once."""
    family = BY_NAME["qwen3_moe"]
    expected = record(family.build(), family.inputs(LENGTHS))
    model = family.build_anew().train()
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable()
    inputs = family.inputs(LENGTHS)
    same(record(model, inputs), expected)
    found, _handles = attach(model)
    loss = model(**inputs, use_cache=False).logits.square().mean()
    assert [len(readings) for readings in found.values()] == [1, 1, 1]
    loss.backward()
    assert [len(readings) for readings in found.values()] == [2, 2, 2]
    assert not any(tensor.requires_grad for (one, _) in found.values() for tensor in (one.weights, one.logits))


# The others fail under it with or without hooks, as their code asks where a weight is.
@pytest.mark.parametrize("name", sorted({*FORMS, "inkling", "gemma4"} - {"dbrx", "jetmoe", "llama4"}))
def test_offloaded_models(name: str) -> None:
    """Weights that accelerate keeps on the CPU are on no device while a hook runs."""
    accelerate = pytest.importorskip("accelerate")
    family = BY_NAME[name]
    kept = family.build()
    model = accelerate.cpu_offload(family.build_anew(), execution_device=torch.device("cpu"), offload_buffers=True)
    assert all(parameter.is_meta for parameter in model.parameters())
    same(record(model, family.inputs(LENGTHS)), record(kept, family.inputs(LENGTHS)))
    for router, other in zip(find_routers(model), find_routers(kept), strict=True):
        vectors, expected = router_vectors(router), router_vectors(other)
        assert (vectors is None) == (expected is None) == (name in {"zaya", "doge"})
        assert vectors is None or torch.equal(vectors, expected)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_wrappers_leave_no_trace_in_paths() -> None:
    """A model, a layer and a router that torch.compile has wrapped are read as they were without."""
    family = BY_NAME["dbrx"]
    expected = record(family.build(), family.inputs(LENGTHS))
    model = family.build_anew()
    model.transformer.blocks[1] = torch.compile(model.transformer.blocks[1], backend="eager")
    model.transformer.blocks[0].ffn.router = torch.compile(model.transformer.blocks[0].ffn.router, backend="eager")
    same(record(torch.compile(model, backend="eager"), family.inputs(LENGTHS)), expected)


@torch.no_grad()
def test_generation_calls_every_router_once_a_step() -> None:
    family = BY_NAME["qwen3_moe"]
    model = family.build()
    found, handles = attach(model)
    model.generate(**family.inputs([5, 5]), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    for handle in handles:
        handle.remove()
    assert {tuple(len(reading.ids) for reading in readings) for readings in found.values()} == {(10, 2, 2, 2)}


def test_hooks_are_gone_when_removed() -> None:
    for name in FORMS:
        model = BY_NAME[name].build()
        _, handles = attach(model)
        assert handles
        for handle in handles:
            handle.remove()
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

"""What routers say in a forward, and what the model really does, found without what is tested."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moefps.recording.readings import Reading
from moefps.recording.routers import RouterSpec, find_routers

ROUTERS = {"router", "gate", "router_gate"}
# The experts of these families are given no ids.
WITHOUT_IDS = {"llama4", "switch_transformers", "nllb_moe", "jetmoe", "doge"}


class Watch:
    """Arguments and results of modules during a forward."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], Any]]] = {}

    @contextmanager
    def on(self, model: nn.Module, paths: Mapping[str, str]) -> Iterator[None]:
        """Keep every call of the modules at `paths`, by the names given to them."""
        with ExitStack() as stack:
            for name, path in paths.items():
                kept = self.calls.setdefault(name, [])

                def hook(_module: Any, args: Any, kwargs: Any, output: Any, kept: Any = kept) -> None:
                    kept.append((args, kwargs, output))

                handle = model.get_submodule(path).register_forward_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            yield


def parent(path: str) -> str:
    """The path of the module that a module is a part of."""
    return path.rpartition(".")[0]


def block_of(path: str, family: str) -> str:
    """The path of the block whose output the experts of a router make."""
    if family == "doge":
        return path
    # The mixture in jetmoe's attention is never called as a module.
    return parent(parent(path)) if path.endswith("self_attention.experts.router") else parent(path)


def ids_given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The ids and weights among the arguments of an experts module."""
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim == 2]
    ids = next(value for value in given if not value.is_floating_point())
    weights = next(value for value in given if value.is_floating_point() and value.shape == ids.shape)
    return ids, weights


def _weights_of(block: nn.Module, n_experts: int) -> Iterator[tuple[int, Tensor]]:
    """The weights of every expert of a block, one view for each tensor; routers and what is shared are left out."""
    for name, tensor in block.named_parameters():
        numbered = re.search(r"expert(?:_|s\.)(\d+)\.", name)
        if numbered is not None:
            yield int(numbered.group(1)), tensor
        elif not ROUTERS.intersection(name.split(".")) and tensor.ndim >= 2 and tensor.shape[0] == n_experts:
            yield from enumerate(tensor)


@torch.no_grad()
def changed_by(block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], n_experts: int) -> Tensor:
    """For which rows each expert makes a difference: it is changed, and the block is run again; bool, shape [n, E].

    An expert whose weight for a token is exactly 0 makes none.
    """

    # The forward that was watched has filled its cache already.
    kwargs = {name: value for name, value in kwargs.items() if name != "past_key_values"}

    def output() -> Tensor:
        found = block(*args, **kwargs)
        found = found[0] if isinstance(found, tuple) else found
        return found.flatten(0, -2).clone()

    before = output()
    changed = torch.zeros(len(before), n_experts, dtype=torch.bool)
    for expert in range(n_experts):
        tensors = [tensor for number, tensor in _weights_of(block, n_experts) if number == expert]
        assert tensors, "the weights of the experts were not found"
        kept = [tensor.clone() for tensor in tensors]
        for tensor in tensors:
            tensor.add_(1.0)
        changed[:, expert] = (output() != before).any(-1)
        for tensor, values in zip(tensors, kept, strict=True):
            tensor.copy_(values)
    assert torch.equal(output(), before)
    return changed


def table(ids: Tensor, n_experts: int) -> Tensor:
    """Turn ids into a table of who runs for whom; -1 is nobody; bool, shape [n, E]."""
    found = torch.zeros(len(ids), n_experts + 1, dtype=torch.bool)
    return found.scatter_(1, torch.where(ids < 0, n_experts, ids), True)[:, :n_experts]


def attach(model: nn.Module, named: tuple[RouterSpec, ...] = ()) -> tuple[dict[str, list[Reading]], list[Any]]:
    """Attach to every router; return what they will have said, and the handles."""
    found: dict[str, list[Reading]] = {}
    handles = []
    for router in find_routers(model, named):
        handles += router.attach(found.setdefault(router.path, []).append)
    return found, handles


@torch.no_grad()
def record(model: nn.Module, inputs: dict[str, Tensor], *named: RouterSpec) -> dict[str, list[Reading]]:
    """What every router said in one forward."""
    found, handles = attach(model, named)
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def same(found: dict[str, list[Reading]], expected: dict[str, list[Reading]]) -> None:
    """Both have the same readings, to rounding."""
    assert found.keys() == expected.keys()
    for path, readings in found.items():
        assert len(readings) == len(expected[path]) > 0
        for one, other in zip(readings, expected[path], strict=True):
            assert torch.equal(one.ids, other.ids)
            torch.testing.assert_close(one.weights, other.weights)
            torch.testing.assert_close(one.logits, other.logits)

"""What a Mixture-of-Experts model is made of, counted from its modules: experts, routers, shared experts, the rest.

Nothing is taken from a list of families. The routers are those that `find_routers` finds; the experts are what stands
beside them once for each; what a token passes through are the stacks of layers that the routers stand in.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from moefps.errors import CaptureError
from moefps.recording.parameter_attention import MIXER, Mixer, find_mixers
from moefps.recording.parameter_experts import expert_tensors, multiplied_numbers
from moefps.recording.parameter_models import open_shell
from moefps.recording.routers import LAYER, WRAPPERS, Router, find_routers
from moefps.recording.specs import RouterSpec

__all__ = ["PARTS", "ExpertLayer", "ModelParameters", "Size", "Stack", "read_parameters"]

PARTS = ("embedding", "attention", "dense", "shared", "router", "head")
"""What a token passes through beside experts; ``dense`` is what is none of the others."""

_SHARED = re.compile(r"(?:^|\.)shared?_")
_NOT_TEXT = re.compile(r"(?:^|\.)[^.]*(?:vision|visual|image|audio|speech)")
_HEAD = re.compile(r"(?:head|score|classifier|qa_outputs)$")
_SHORT = re.compile(r"ShortConv(?:olution)?$")


class Size(NamedTuple):
    """How many numbers a part has, and how many of them a token is multiplied by.

    Attributes
    ----------
    parameters : int
        Numbers, each counted where it comes first: what is tied to another part counts there.
    multiplied : int
        Numbers in matrices that a token's vector is multiplied by, tied or not: two operations each.
    """

    parameters: int = 0
    multiplied: int = 0


@dataclass(frozen=True)
class ExpertLayer:
    """The experts of one router.

    Attributes
    ----------
    path : str
        Module path of the router, as in a dump.
    layer : int
        The model's own layer number.
    stack : str or None
        ``encoder``, ``decoder`` or ``vision``; None where the model has one stack.
    n_experts : int
        Experts that the router chooses among, passive ones included.
    passive_experts : int
        How many of them do nothing.
    top_k : int or None
        Slots of a token; None where the model does not say.
    expert : Size
        One expert.
    unused : int
        Numbers that transformers keeps for passive experts, which nothing reads.
    is_text : bool
        False for experts that text never reaches, such as those of a vision tower.
    """

    path: str
    layer: int
    stack: str | None
    n_experts: int
    passive_experts: int
    top_k: int | None
    expert: Size
    unused: int
    is_text: bool


@dataclass(frozen=True)
class Stack:
    """A stack of layers that text passes through, without its experts.

    Attributes
    ----------
    name : str or None
        ``encoder`` or ``decoder``; the module path where a model has several others, None where it has one.
    path : str
        Its module path.
    parts : mapping of str to Size
        One for each of `PARTS`.
    mixers : tuple of Mixer
        Its attention, layer by layer.
    """

    name: str | None
    path: str
    parts: Mapping[str, Size]
    mixers: tuple[Mixer, ...]


@dataclass(frozen=True)
class ModelParameters:
    """What a model is made of.

    Attributes
    ----------
    source : str
        What was given.
    model_type : str
        Its family.
    total : int
        All parameters; what is tied counts once.
    layers : tuple of ExpertLayer
        A router each, in the order in which they run.
    stacks : tuple of Stack
        An encoder before its decoder.
    towers : int
        Parameters that text does not reach, such as those of a vision tower, without its experts.
    """

    source: str
    model_type: str
    total: int
    layers: tuple[ExpertLayer, ...]
    stacks: tuple[Stack, ...]
    towers: int

    def stack_of(self, path: str) -> Stack | None:
        """Give the stack that a module stands in."""
        return next((stack for stack in self.stacks if _is_below(path, stack.path)), None)


def read_parameters(model: Any, *, routers: Sequence[RouterSpec | str] = ()) -> ModelParameters:
    """Count what a model is made of.

    Parameters
    ----------
    model : PreTrainedModel, PreTrainedConfig, path or str
        As for `moefps.recording.parameter_models.open_shell`.
    routers : sequence of RouterSpec or str
        Routers that moefps does not find by itself.

    Returns
    -------
    ModelParameters
        Without layers and stacks for a model without experts.

    Raises
    ------
    ArgumentError, FileError
        There is no such model.
    CaptureError
        A router does not say how many experts it has, or no experts are found beside it.

    Examples
    --------
    >>> from transformers import MixtralConfig
    >>> found = read_parameters(MixtralConfig(num_hidden_layers=2))
    >>> found.layers[0].n_experts, found.layers[0].expert.parameters == 3 * 4096 * 14336
    (8, True)
    """
    shell = open_shell(model)
    named = [RouterSpec.parse(spec) if isinstance(spec, str) else spec for spec in routers]
    counting = _Counting(shell.model, find_routers(shell.model, named))
    total = sum(parameter.numel() for parameter in shell.model.parameters())
    layers, stacks, towers = counting.run()
    return ModelParameters(shell.source, shell.model_type, total, layers, stacks, towers)


class _Counting:
    """Goes through a model once and gives every parameter to the part where it comes first."""

    def __init__(self, model: nn.Module, routers: Sequence[Router]) -> None:
        self._routers = routers
        # The paths without wrappers; what is wrapped comes after its wrapper, under the same path.
        self._modules = {_plain(path): module for path, module in model.named_modules()}
        self._names = _stacks(model, routers, self._modules)
        self._parts = {path: dict.fromkeys(PARTS, Size()) for path in self._names}
        self._heads = _heads(list(self._names), self._modules)
        self._input = _input_embedding(model)
        self._mixers = [
            path
            for path, module in self._modules.items()
            if MIXER.search(type(module).__name__) or _SHORT.search(type(module).__name__)
        ]
        self._owned: set[nn.Parameter] = set()
        self._in_experts: set[tuple[nn.Module, str]] = set()
        self._towers = 0

    def run(self) -> tuple[tuple[ExpertLayer, ...], tuple[Stack, ...], int]:
        """Count the experts, then everything else."""
        layers = tuple(self._count_experts(router) for router in self._routers)
        for path, module in self._modules.items():
            for name, parameter in module.named_parameters(recurse=False):
                if (module, name) not in self._in_experts:
                    self._count(path, module, name, parameter)
        stacks = tuple(
            Stack(name, path, self._parts[path], _mixers(self._modules[path], path))
            for path, name in self._names.items()
        )
        return layers, stacks, self._towers

    def _own(self, parameter: nn.Parameter) -> int:
        """Give the size of a parameter when it is first met, and 0 after."""
        if parameter in self._owned:
            return 0
        self._owned.add(parameter)
        return parameter.numel()

    def _count_experts(self, router: Router) -> ExpertLayer:
        """Count the experts of a router."""
        n_experts = router.n_experts
        if n_experts is None:
            raise CaptureError(f"{router.path}: {type(router.module).__name__} does not say how many experts it has")
        if n_experts < 1:
            raise CaptureError(f"{router.path}: has {n_experts} experts; accepted: at least 1")
        active = n_experts - router.passive_experts
        parameters = multiplied = unused = n_tensors = 0
        for module, name, parameter, copies in expert_tensors(router, n_experts):
            n_tensors += 1
            self._in_experts.add((module, name))
            owned = self._own(parameter)
            read = owned if copies is None else owned // copies * active
            parameters += read
            unused += owned - read
            is_matrix = multiplied_numbers(module, name, parameter) or isinstance(module, nn.Embedding)
            real = parameter.numel() if copies is None else parameter.numel() // copies * active
            multiplied += real if is_matrix else 0
        if not n_tensors:
            raise CaptureError(f"{router.path}: no experts stand beside {type(router.module).__name__}")
        return ExpertLayer(
            path=router.path,
            layer=router.layer,
            stack=router.stack,
            n_experts=n_experts,
            passive_experts=router.passive_experts,
            top_k=router.top_k,
            expert=Size(parameters // active, multiplied // active),
            unused=unused,
            is_text=_is_text(router),
        )

    def _count(self, path: str, module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        """Give a parameter that is no expert's to its part."""
        root, part = self._place(path, module)
        if root is None:
            self._towers += self._own(parameter)
            return
        before = self._parts[root][part]
        owned, multiplied = self._own(parameter), multiplied_numbers(module, name, parameter)
        self._parts[root][part] = Size(before.parameters + owned, before.multiplied + multiplied)

    def _place(self, path: str, module: nn.Module) -> tuple[str | None, str]:
        """Tell which stack and part a module belongs to; no stack where text does not reach it."""
        if path in self._heads:
            return self._heads[path], "head"
        root = next((root for root in self._names if _is_below(path, root)), None)
        if module is self._input:
            # A table that an encoder and a decoder share stands outside both.
            return next(iter(self._names), None) if root is None else root, "embedding"
        if root is None or _NOT_TEXT.search(path[len(root) :]):
            return None, ""
        return root, "embedding" if isinstance(module, nn.Embedding) else self._part(path, path[len(root) :])

    def _part(self, path: str, inside: str) -> str:
        """Tell which part of a stack a module belongs to, by its path and the end of it that is inside the stack."""
        if any(_is_below(path, router.path) for router in self._routers):
            return "router"
        if _SHARED.search(inside):
            return "shared"
        return "attention" if any(_is_below(path, mixer) for mixer in self._mixers) else "dense"


def _plain(path: str) -> str:
    """Leave out what torch and its wrappers put into a module path."""
    return ".".join(part for part in path.split(".") if part not in WRAPPERS)


def _is_below(path: str, root: str) -> bool:
    """Tell whether a module is another one, or a part of it."""
    return not root or path == root or path.startswith(f"{root}.")


def _mixers(stack: nn.Module, path: str) -> tuple[Mixer, ...]:
    """Find the attention of a stack that text passes through."""
    found = (dataclasses.replace(mixer, path=_plain(mixer.path)) for mixer in find_mixers(stack, path))
    return tuple(mixer for mixer in found if not _NOT_TEXT.search(mixer.path[len(path) :]))


def _is_text(router: Router) -> bool:
    """Tell whether tokens of text reach a router."""
    if router.stack == "vision":
        return False
    covered = router.covers({"input_ids": torch.zeros(1, 1, dtype=torch.int64)})
    return covered is None or bool(covered.any())


def _stacks(model: nn.Module, routers: Sequence[Router], modules: Mapping[str, nn.Module]) -> dict[str, str | None]:
    """Find the stacks of layers that the routers of text stand in, and name them."""
    found: dict[str, set[str | None]] = {}
    for router in routers:
        if _is_text(router):
            layer = LAYER.search(router.path)
            found.setdefault("" if layer is None else router.path[: layer.start()], set()).add(router.stack)
    if not found:
        return {}
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False) is True:
        # One of the two may have no experts.
        for path in modules:
            part = path.rpartition(".")[2]
            if part in {"encoder", "decoder"} and not any(_is_below(a, b) for a, b in _pairs(path, found)):
                found[path] = {part}
    tops = [path for path in found if not any(path != other and _is_below(path, other) for other in found)]
    order = [path for path in modules if path in tops]
    if len(order) == 1:
        return {order[0]: next(iter(found[order[0]])) if len(found[order[0]]) == 1 else None}
    return {path: next(iter(found[path])) or path for path in order}


def _pairs(path: str, others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pair a path with others, both ways round."""
    for other in others:
        yield path, other
        yield other, path


def _heads(roots: Sequence[str], modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Find what makes predictions of a stack's output: linear maps of that name, in the stack or around it."""
    found: dict[str, str] = {}
    above = {root: [".".join(root.split(".")[:n]) for n in range(root.count(".") + 2)] for root in roots}
    for path in sorted({path for paths in above.values() for path in ["", *paths]}, key=len, reverse=True):
        last = [root for root in roots if _is_below(root, path)][-1]
        for name, child in modules[path].named_children():
            if isinstance(child, nn.Linear) and _HEAD.search(name):
                found.setdefault(f"{path}.{name}" if path else name, last)
    return found


def _input_embedding(model: nn.Module) -> nn.Module | None:
    """Return the table of the model's tokens, which an encoder and a decoder may share."""
    try:
        found = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Embedding) else None

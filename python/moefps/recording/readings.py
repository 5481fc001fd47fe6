"""What a router hands out in a forward pass, and the hooks that read it.

Nearly every family of transformers has a router module that returns ``(logits, weights, ids)``; `EXCEPTIONS` lists the
others. A hook only looks at tensors that the model made: it copies nothing to the CPU, waits for nothing, reads no
parameter (accelerate may have put them away by then) and is plain enough for torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moefps.errors import CaptureError
from moefps.recording.modalities import patch_counts, text_positions, vision_positions

__all__ = ["EXCEPTIONS", "Emit", "Form", "Reading", "Site", "attach_beside_experts", "exception_for"]


@dataclass(frozen=True, eq=False)
class Reading:
    """What one call of one router decided, detached and on the router's device.

    Attributes
    ----------
    ids : Tensor, integer, shape [n, k]
        The experts of each row, slots as the model used them; -1 is an empty slot (a dropped token). Rows are tokens,
        all of the first sequence, then all of the second, padding included.
    weights : Tensor, floating, shape [n, k]
        Their weights as the router returned them, 0 in empty slots.
    logits : Tensor, floating, shape [n, E], or None
        The scores that the choice was made from, where the model has them.
    """

    ids: Tensor
    weights: Tensor
    logits: Tensor | None


Emit: TypeAlias = Callable[[Reading], None]


@dataclass(frozen=True, eq=False)
class Site:
    """Where a router stands: its path, the module, and the module that it is a part of."""

    path: str
    module: nn.Module
    parent: nn.Module


Attach: TypeAlias = Callable[[Site, Emit], list[RemovableHandle]]
Fact: TypeAlias = Callable[[Site], int | None]
Inputs: TypeAlias = Mapping[str, Any]


def attach_tuple(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read ``(logits, weights, ids, …)``, what nearly every router returns."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        check(site, output, fits=isinstance(output, tuple) and len(output) >= 3 and _fits(*output[:3]))
        logits, weights, ids = output[:3]
        emit(reading(ids, weights, logits))

    return [site.module.register_forward_hook(hook)]


def reading(ids: Tensor, weights: Tensor, logits: Tensor | None) -> Reading:
    """Detach what a router returned, a row a token."""
    return Reading(
        ids.detach().reshape(-1, ids.shape[-1]),
        weights.detach().reshape(-1, weights.shape[-1]),
        None if logits is None else logits.detach().reshape(-1, logits.shape[-1]),
    )


def check(site: Site, output: Any, *, fits: bool) -> None:
    """Raise where a router does not return what it is known for.

    Raises
    ------
    CaptureError
        With what it returned, and what to do.
    """
    if not fits:
        raise CaptureError(
            f"{site.path}: {type(site.module).__name__} returned {describe(output)}, which moefps cannot read; name it "
            "with RouterSpec and say which output is what, or use another release of transformers"
        )


def describe(output: Any) -> str:
    """Say what a module returned, in one line."""
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')}{list(output.shape)}"
    if isinstance(output, (tuple, list)):
        return f"({', '.join(describe(part) for part in output)})"
    return type(output).__name__


def _get(module: nn.Module, name: str) -> Any:
    """Read an attribute that the type of a module says nothing of."""
    return getattr(module, name)


def _fits(logits: Any, weights: Any, ids: Any) -> bool:
    """Tell whether three outputs can be logits, weights and ids."""
    return (
        isinstance(ids, Tensor)
        and isinstance(weights, Tensor)
        and isinstance(logits, Tensor)
        and not ids.is_floating_point()
        and weights.is_floating_point()
        and logits.is_floating_point()
        and ids.ndim >= 2
        and ids.shape == weights.shape
        and logits.shape[-1] >= ids.shape[-1]
        and logits.numel() * ids.shape[-1] == ids.numel() * logits.shape[-1]
    )


def attach_beside_experts(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read ids and weights on their way into the experts, and the logits wherever the router returns them."""
    waiting: list[Any] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        waiting.clear()
        waiting.append(output)

    def read(_module: nn.Module, args: Any) -> None:
        # Without a call of the router there are no logits: its block multiplied by its weight itself.
        output = waiting.pop() if waiting else None
        check(site, (output, args), fits=len(args) == 3 and _are_choices(*args[1:]))
        _, ids, weights = args
        outputs = output if isinstance(output, tuple) else (output,)
        logits = [part for part in outputs if _are_logits(part, ids)]
        emit(reading(ids, weights, logits[0] if len(logits) == 1 else None))

    experts: nn.Module = _get(site.parent, "experts")
    return [site.module.register_forward_hook(keep), experts.register_forward_pre_hook(read)]


def _are_choices(ids: Any, weights: Any) -> bool:
    """Tell whether two arguments can be ids and weights."""
    return (
        isinstance(ids, Tensor)
        and isinstance(weights, Tensor)
        and not ids.is_floating_point()
        and weights.is_floating_point()
        and ids.shape == weights.shape
        and ids.ndim == 2
    )


def _are_logits(part: Any, ids: Tensor) -> bool:
    """Tell whether an output can be the logits of all experts."""
    is_floating = isinstance(part, Tensor) and part.is_floating_point()
    return is_floating and part.shape[-1] > ids.shape[1] and part.numel() == part.shape[-1] * ids.shape[0]


def _attach_llama4(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read ``(scores, logits)``: a score that is not 0 marks a chosen expert."""
    top_k = int(_get(site.module, "top_k"))

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        fits = isinstance(output, tuple) and len(output) == 2 and output[0].shape == output[1].shape
        check(site, output, fits=fits)
        scores, logits = output
        ids = logits.masked_fill(scores == 0, -torch.inf).topk(top_k, dim=-1).indices
        emit(reading(ids, scores.gather(-1, ids), logits))

    return [site.module.register_forward_hook(hook)]


def _attach_switch(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read ``(one-hot mask, probability, logits)``: a mask without a one is a dropped token."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        check(site, output, fits=_is_mask_first(output))
        mask, probability, logits = output
        kept = mask.any(-1, keepdim=True)
        ids = mask.argmax(-1, keepdim=True).masked_fill(~kept, -1)
        emit(reading(ids, probability.masked_fill(~kept, 0), logits))

    return [site.module.register_forward_hook(hook)]


def _is_mask_first(output: Any) -> bool:
    """Tell whether three outputs are a mask of whole numbers, what goes with it, and logits of the mask's shape."""
    return len(output) == 3 and not output[0].is_floating_point() and output[0].shape == output[2].shape


def _attach_nllb(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read ``(mask of the first expert, gates of both, logits)``: a gate of 0 is a dropped slot."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        check(site, output, fits=_is_mask_first(output))
        mask, gates, logits = output
        first = mask.argmax(-1, keepdim=True)
        others = gates.masked_fill(mask.bool(), 0)
        second = others.argmax(-1, keepdim=True)
        kept = torch.cat([mask.any(-1, keepdim=True), others.gather(-1, second) > 0], -1)
        ids = torch.cat([first, second], -1)
        emit(reading(ids.masked_fill(~kept, -1), gates.gather(-1, ids).masked_fill(~kept, 0), logits))

    return [site.module.register_forward_hook(hook)]


def _attach_jetmoe(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read ``(order, rows, gates, sizes, logits)``: the assignments are sorted by expert, `sizes` for each."""
    top_k = int(_get(site.module, "top_k"))

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        check(site, output, fits=isinstance(output, tuple) and len(output) == 5)
        order, _, gates, sizes, logits = output
        # The sizes are numbers on the CPU already: the model itself has waited for them.
        experts = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(order.device)
        ids = torch.empty_like(order).scatter(0, order, experts)
        weights = torch.empty_like(gates).scatter(0, order, gates)
        emit(reading(ids.view(-1, top_k), weights.view(-1, top_k), logits))

    return [site.module.register_forward_hook(hook)]


def _attach_doge(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read the ids on their way into the table of experts, and the logits of both keys when the block ends.

    An expert is a pair of keys, its logit the sum of theirs. The weights leave the block nowhere: they are the softmax
    of the chosen logits, as in the block.
    """
    waiting: list[Tensor] = []

    def keep(_module: nn.Module, args: Any) -> None:
        waiting.clear()
        waiting.append(args[0])

    def read(_module: nn.Module, _args: Any, output: Any) -> None:
        check(site, output, fits=isinstance(output, tuple) and output[1].ndim == 3)
        ids, (first, second) = waiting.pop(), output[1].detach()
        logits = (first.unsqueeze(-1) + second.unsqueeze(-2)).flatten(-2)
        emit(reading(ids, logits.gather(-1, ids).softmax(-1), logits))

    table: nn.Module = _get(site.module, "down_embed")
    return [table.register_forward_pre_hook(keep), site.module.register_forward_hook(read)]


def _attach_zaya(site: Site, emit: Emit) -> list[RemovableHandle]:
    """Read the tuple, with the skipped tokens (expert 0, weight 0) under the id of the class that skips."""

    def skip(read: Reading) -> None:
        if read.logits is None:
            raise CaptureError(f"{site.path}: the router returned no logits, which tell the class that skips")
        skipped = (read.ids == 0) & (read.weights == 0)
        emit(Reading(read.ids.masked_fill(skipped, read.logits.shape[-1] - 1), read.weights, read.logits))

    return attach_tuple(site, skip)


@dataclass(frozen=True)
class Form:
    """What a router returns, and the facts about it that its attributes do not tell in the usual words.

    Attributes
    ----------
    attach : callable
        Registers the hooks on a site.
    scoring : str, optional
        Where the router's own code does not tell it.
    n_experts, top_k, passive_experts : callable, optional
        Numbers of a site.
    signed_weights : bool
        Weights may be negative.
    has_vectors : bool
        The router compares a token with one vector for each expert.
    derived : bool
        The ids are the top-k of the logits, as the model does not hand them out.
    covers : callable, optional
        Which positions of a forward's inputs the rows are, where not all.
    patches : callable, optional
        How many patches of a vision tower each sample has; only such routers have it.
    """

    attach: Attach = attach_tuple
    scoring: str | None = None
    n_experts: Fact | None = None
    top_k: Fact | None = None
    passive_experts: Fact | None = None
    signed_weights: bool = False
    has_vectors: bool = True
    derived: bool = False
    covers: Callable[[Site, Inputs], Tensor | None] | None = None
    patches: Callable[[Inputs], list[int]] | None = None


def _attribute(name: str) -> Fact:
    """Read a number from the router."""
    return lambda site: int(_get(site.module, name))


def _longcat_passive(site: Site) -> int:
    """Count the experts of longcat_flash that have no weights."""
    return int(_get(site.module, "n_routed_experts")) - int(_get(_get(site.parent, "experts"), "num_routed_experts"))


def _ernie_positions(site: Site, inputs: Inputs) -> Tensor | None:
    """Tell which positions a router of ERNIE 4.5 VL sees: each layer has one for text and one for the rest."""
    return vision_positions(inputs) if ".vision_moe." in site.path else text_positions(inputs)


_GEMMA = Form(
    scoring="probabilities", top_k=lambda site: int(_get(site.module, "config").top_k_experts), signed_weights=True
)

# By the class name in transformers 5.23. Whatever is not here returns (logits, weights, ids).
EXCEPTIONS: Mapping[str, Form] = {
    "DbrxRouter": Form(attach_beside_experts, scoring="softmax", top_k=lambda site: int(_get(site.parent, "top_k"))),
    "DeepseekV4HashRouter": Form(scoring="hash"),
    "DiffusionGemmaTextRouter": _GEMMA,
    "DogeCDMoE": Form(
        _attach_doge,
        scoring="softmax_topk",
        n_experts=lambda site: int(_get(site.module, "num_keys")) ** 2,
        has_vectors=False,
    ),
    "Dots3NoteVisionTopKRouter": Form(patches=patch_counts),
    "Ernie4_5_VLMoeMoeTopKRouter": Form(covers=_ernie_positions),
    "Gemma4TextRouter": _GEMMA,
    "JetMoeTopKGating": Form(_attach_jetmoe),
    "Llama4Router": Form(_attach_llama4),
    # Releases before 5.23 leave out its logits.
    "LongcatFlashTopkRouter": Form(
        attach_beside_experts, n_experts=_attribute("n_routed_experts"), passive_experts=_longcat_passive
    ),
    "NllbMoeTop2Router": Form(_attach_nllb, scoring="softmax", top_k=lambda _: 2),
    # Its weights come from two softmaxes over what is left of the logits near the largest: not one distribution.
    "PhimoeTopKRouter": Form(scoring="other"),
    "SwitchTransformersTop1Router": Form(_attach_switch, top_k=lambda _: 1),
    "ZayaRouter": Form(
        _attach_zaya, n_experts=_attribute("num_router_classes"), passive_experts=lambda _: 1, has_vectors=False
    ),
}


def exception_for(module: nn.Module) -> Form | None:
    """Return what is special about a router of transformers, None where nothing is."""
    for cls in type(module).__mro__:
        if cls.__module__.startswith("transformers.models.") and cls.__name__ in EXCEPTIONS:
            return EXCEPTIONS[cls.__name__]
    return None

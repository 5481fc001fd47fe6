"""A model as it is found: what wraps it, which of its layers are where, and how it is left."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from moefps.errors import ArgumentError
from moefps.recording.collecting import HiddenTap

__all__ = ["hidden_taps", "left_as_found", "plain_module"]

_LAYER_LISTS = re.compile(r"(?:^|\.)(?:layers|blocks?|h)$")


def plain_module(model: Any) -> Any:
    """Give the module inside what ``torch.compile`` makes of it.

    Raises
    ------
    ArgumentError
        `model` is no torch module.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"model: got a {type(model).__name__}; accepted: a model of transformers, its folder or name"
        )
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, nn.Module) or not hasattr(inner, "config"):
        raise ArgumentError(f"model: {type(inner).__name__} has no config; accepted: a model of transformers")
    return inner


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and every module of it back afterwards.

    Code that was compiled before the hooks came would pass them by in silence, and code that is compiled with them
    would keep them. So where a part of the model is compiled, compiled code is thrown away before and after, and
    compiled again when it is next run.
    """
    modes = {module: module.training for module in model.modules()}
    is_compiled = any(_is_compiled(module) for module in modes)
    if is_compiled:
        torch.compiler.reset()
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        if is_compiled:
            torch.compiler.reset()


def _is_compiled(module: nn.Module) -> bool:
    """Tell whether ``torch.compile`` was applied to a module, to its call or to its forward."""
    return (
        hasattr(module, "_orig_mod")
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
    )


def hidden_taps(model: nn.Module, layers: Sequence[int]) -> list[HiddenTap]:
    """Find the layers whose outputs are the residual stream.

    Parameters
    ----------
    model : nn.Module
        The model.
    layers : sequence of int
        The model's own layer numbers, in any order.

    Returns
    -------
    list of HiddenTap
        In the order given. Of an encoder-decoder, those of the decoder.

    Raises
    ------
    ArgumentError
        A number is given twice, or there is no such layer.
    """
    if not layers:
        return []
    if len(set(layers)) < len(layers):
        raise ArgumentError(f"hidden_states: {list(layers)} has a layer twice")
    blocks = _layer_list(model)
    wrong = [layer for layer in layers if not 0 <= layer < len(blocks)]
    if wrong:
        raise ArgumentError(f"hidden_states: got layer {wrong[0]}; accepted: 0 to {len(blocks) - 1}")
    stack = "decoder" if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else None
    return [HiddenTap(layer, blocks[layer], stack) for layer in layers]


def _layer_list(model: nn.Module) -> nn.ModuleList:
    """Find the list of layers that texts go through: the longest, and the last of those of one length."""
    found = [
        module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and _LAYER_LISTS.search(path) and "vision" not in path
    ]
    if not found:
        raise ArgumentError("hidden_states: the model has no list of layers that moefps knows")
    longest = max(len(module) for module in found)
    return [module for module in found if len(module) == longest][-1]

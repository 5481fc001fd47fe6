"""A model as it is found: what wraps it, which of its layers are where, and how it is left."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moefps.errors import ArgumentError, CaptureError
from moefps.recording.collecting import HiddenTap

__all__ = ["hidden_taps", "left_as_found", "plain_module", "weights_digest"]

_NUMBERS_OF_EACH = 256
_IN_USE: set[nn.Module] = set()
_TURN = threading.Lock()
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

    Raises
    ------
    CaptureError
        The model is being captured already, by another thread or around this one: each would see the other's rows.
    """
    inner = plain_module(model)
    with _TURN:
        if inner in _IN_USE:
            raise CaptureError("model: another capture of it is running; accepted: one at a time")
        _IN_USE.add(inner)
    try:
        with _evaluating(model):
            yield
    finally:
        with _TURN:
            _IN_USE.discard(inner)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and back, and keep compiled code from passing hooks by."""
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


def weights_digest(model: nn.Module) -> str:
    """Sum up a model's weights by a few numbers of each, which a resumed capture must agree with.

    Weights that accelerate has put away count by their names and shapes.
    """
    digest = hashlib.sha256()
    pieces: list[Tensor] = []
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} ".encode())
        weights = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        if not weights.is_meta:
            flat = weights.detach().reshape(-1)
            pieces.append(flat[:: max(1, len(flat) // _NUMBERS_OF_EACH)].float())
    devices = list(dict.fromkeys(piece.device for piece in pieces))
    # One wait a device, not one a parameter; and the same sum however a model is spread.
    at_hand = {}
    for device in devices:
        there = [piece for piece in pieces if piece.device == device]
        at_hand[device] = iter(torch.split(torch.cat(there).cpu(), [len(piece) for piece in there]))
    for piece in pieces:
        digest.update(next(at_hand[piece.device]).numpy().tobytes())
    return digest.hexdigest()[:16]


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

"""Adding the distributions of tokens up to fingerprints, on the device that the model runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from moefps.errors import CaptureError
from moefps.recording.scoring import full_probabilities

if TYPE_CHECKING:
    from moefps.recording.routers import Router

__all__ = ["Laid", "Rows", "add_up", "stack_layers"]

_LARGEST_PIECE = 1 << 24
"""Numbers in the largest intermediate: 64 MB of float32."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The positions of a stack [B, S], on one device."""

    shape: tuple[int, int]
    index: Tensor | None  # of the valid ones; None: all of them
    mask: Tensor  # [B * S] bool


@dataclass(frozen=True, eq=False)
class Laid:
    """What one router gave, a row for every position of a batch."""

    router: Router
    n_experts: int | None
    ids: Tensor
    weights: Tensor
    logits: Tensor | None


def add_up(kind: str, laid: Sequence[Laid], ids: Tensor, weights: Tensor, rows: Rows) -> Tensor:
    """Take the mean of the distributions of each sample's tokens, a few layers at a time to save memory.

    Parameters
    ----------
    kind : {"probs", "weights", "counts"}
        Which distribution of a token over the experts.
    laid : sequence of Laid
        The layers.
    ids, weights : Tensor of shape [B * S, layers, k]
        The same of all layers together; -1 is an empty slot.
    rows : Rows
        Which positions are tokens. One without a filled slot in a layer does not count there.

    Returns
    -------
    Tensor, float32, shape [B, layers, E]
        Zero where a sample has no filled slot in a layer.
    """
    n_samples, n_positions = rows.shape
    filled = ids >= 0
    seen = rows.mask[:, None] & filled.any(dim=2)
    if kind == "weights":
        # A token whose weights sum to 0 has no shares.
        seen &= torch.where(filled, weights, 0).float().sum(dim=2) != 0
    width = max(_n_experts(layer) for layer in laid)
    step = max(1, _LARGEST_PIECE // (width * len(ids)))
    sums = []
    for first in range(0, len(laid), step):
        part = slice(first, min(first + step, len(laid)))
        mass = _full(laid[part], width) if kind == "probs" else _sparse(kind, ids[:, part], weights[:, part], width)
        mass = torch.where(seen[:, part, None], mass, 0)
        sums.append(mass.view(n_samples, n_positions, -1, width).sum(dim=1))
    counted = (filled & seen[:, :, None]).sum(dim=2) if kind == "counts" else seen
    n_counted = counted.view(n_samples, n_positions, -1).sum(dim=1)
    return torch.cat(sums, dim=1) / n_counted.clamp(min=1)[:, :, None]


def stack_layers(tensors: Sequence[Tensor], *, fill: int, width: int = 0) -> Tensor:
    """Stack layers as the second dimension, in the widest dtype and the widest last dimension."""
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
        width = max(width, tensor.shape[-1])
    return torch.stack([_widen(tensor.to(dtype), width, fill) for tensor in tensors], dim=1)


def _sparse(kind: str, ids: Tensor, weights: Tensor, width: int) -> Tensor:
    """Give the distribution over the chosen experts, float32 [rows, layers, E]."""
    filled = ids >= 0
    share = filled.float()
    if kind == "weights":
        share = torch.where(filled, weights.float(), 0)
        total = share.sum(dim=2, keepdim=True)
        share = share / torch.where(total == 0, 1, total)
    mass = share.new_zeros((*ids.shape[:2], width))
    return mass.scatter_add_(2, ids.clamp(min=0).long(), share)


def _full(laid: Sequence[Laid], width: int) -> Tensor:
    """Give the full distributions, float32 [rows, layers, E]."""
    for layer in laid:
        if layer.logits is None:
            raise CaptureError(f"{layer.router.path}: the router gives no full distribution; use kind='weights'")
    given = [layer.logits for layer in laid if layer.logits is not None]
    scorings = {layer.router.scoring for layer in laid}
    if len(scorings) == 1 and len({logits.shape for logits in given}) == 1:
        return _widen(full_probabilities(torch.stack(given, dim=1), laid[0].router.scoring), width, 0)
    each = [full_probabilities(logits, layer.router.scoring) for logits, layer in zip(given, laid, strict=True)]
    return stack_layers(each, fill=0, width=width)


def _n_experts(layer: Laid) -> int:
    if layer.n_experts is None:
        raise CaptureError(f"{layer.router.path}: has no logits and does not say how many experts it has")
    return layer.n_experts


def _widen(tensor: Tensor, width: int, fill: int) -> Tensor:
    missing = width - tensor.shape[-1]
    return tensor if missing == 0 else pad(tensor, (0, missing), value=fill)

"""Which token positions, or which patches of an image, the rows of a router are, where they are not all tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moefps.errors import CaptureError

__all__ = ["patch_counts", "text_positions", "vision_positions"]

# What ERNIE 4.5 VL is told about each position: 0 is text. Without it, or without an image, all are.
KINDS = "moe_mm_token_type_ids"
GRIDS = ("image_grid_thw", "video_grid_thw")


def text_positions(inputs: Mapping[str, Any]) -> Tensor | None:
    """Tell which positions text experts see, None where they see all; bool, shape [B, S]."""
    kinds = inputs.get(KINDS)
    return None if kinds is None or not bool(kinds.any()) else kinds == 0


def vision_positions(inputs: Mapping[str, Any]) -> Tensor:
    """Tell which positions vision experts see; bool, shape [B, S].

    Raises
    ------
    CaptureError
        The inputs say nothing of positions.
    """
    kinds = inputs.get(KINDS)
    if kinds is not None:
        return torch.as_tensor(kinds != 0)
    for name in ("input_ids", "inputs_embeds"):
        if inputs.get(name) is not None:
            given: Tensor = inputs[name]
            return torch.zeros(given.shape[:2], dtype=torch.bool, device=given.device)
    raise CaptureError("inputs: neither input_ids nor inputs_embeds; accepted: one of them")


def patch_counts(inputs: Mapping[str, Any]) -> list[int]:
    """Count the patches that a vision tower sees, of images and then of videos, for a batch of one sample.

    Raises
    ------
    CaptureError
        The batch has images and several samples: nothing says which image is whose.
    """
    n_samples = inputs["input_ids"].shape[0]
    n_patches = sum(int(inputs[name].prod(-1).sum()) for name in GRIDS if inputs.get(name) is not None)
    if n_patches and n_samples > 1:
        raise CaptureError(f"inputs: {n_samples} samples with images; accepted: one, as routers see the patches of all")
    return [n_patches] * n_samples

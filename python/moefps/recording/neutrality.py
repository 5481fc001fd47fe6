"""Whether what a model does with a sample depends on the samples beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

__all__ = ["neutral_length", "one_by_one_reason"]

# Modules of transformers with which a sample's routing depends on the others: when, and why.
ALONE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "DogeCDMoE": (lambda _: True, "doge splits the logits of its two keys across the batch"),
    "NllbMoeTop2Router": (
        lambda router: not router.moe_eval_capacity_token_fraction >= 1,
        "the samples of a batch share the capacity of nllb_moe's experts",
    ),
    "DiffusionGemmaDecoderModel": (lambda _: True, "the canvas of diffusion_gemma stands after the padding"),
}


def one_by_one_reason(model: nn.Module) -> str | None:
    """Say why a model's routing depends on what else is in a padded batch, None where it does not.

    Examples
    --------
    >>> one_by_one_reason(nn.Linear(2, 2)) is None
    True
    """
    for module in model.modules():
        known = type(module).__module__.startswith("transformers.models.")
        reason = ALONE.get(type(module).__name__) if known else None
        if reason is not None and reason[0](module):
            return reason[1]
    return None


def neutral_length(model: nn.Module) -> int | None:
    """Tell up to which padded length padding changes nothing, None where there is no limit.

    Attention that looks at the best ``index_topk`` positions only breaks exact ties by the padded length, once there
    are more positions than that. Samples of equal length are not padded, and are neutral at any length.

    Examples
    --------
    >>> neutral_length(nn.Linear(2, 2)) is None
    True
    """
    found = (getattr(module, "index_topk", None) for module in model.modules())
    return min((limit for limit in found if isinstance(limit, int)), default=None)

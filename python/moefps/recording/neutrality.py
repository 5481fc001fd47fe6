"""Whether what a model does with a sample depends on the samples beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

__all__ = ["gap_reason", "neutral_length", "one_by_one_reason"]

# Modules of transformers with which a sample's routing depends on the others: when, and why.
ALONE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "DogeCDMoE": (lambda _: True, "doge splits the logits of its two keys across the batch"),
    "NllbMoeTop2Router": (
        lambda router: not router.moe_eval_capacity_token_fraction >= 1,
        "the samples of a batch share the capacity of nllb_moe's experts",
    ),
    "DiffusionGemmaDecoderModel": (lambda _: True, "the canvas of diffusion_gemma stands after the padding"),
}


# Modules that mix neighbouring positions without asking the mask, by what their classes are called in transformers.
_MIXERS = re.compile(
    r"Mamba|DeltaNet|DeltaAttention|LightningAttention|LinearAttention|ShortConv|Recurrent|RGLRU|RWKV|Retention|SSM|Compressor"
)
# Towers that read images and sound have convolutions of their own, and see no text.
_TOWERS = re.compile(r"(?:^|\.)(?:vision|visual|image|audio|sound)")


def gap_reason(model: nn.Module) -> str | None:
    """Say why masked positions inside a sequence change what comes after them, None where they do not.

    Attention leaves them out. A state that is carried from position to position, a convolution over neighbours, or
    blocks of positions that are pooled do not: they would see that something stood there.

    Examples
    --------
    >>> gap_reason(nn.Linear(2, 2)) is None
    True
    >>> gap_reason(nn.Sequential(nn.Conv1d(2, 2, 3)))
    '0 (Conv1d) carries what stood at one position on to the next, masked or not'
    """
    for path, module in model.named_modules():
        if _TOWERS.search(path):
            continue
        name = type(module).__name__
        if isinstance(module, nn.Conv1d) or _MIXERS.search(name):
            return f"{path} ({name}) carries what stood at one position on to the next, masked or not"
    return one_by_one_reason(model)


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

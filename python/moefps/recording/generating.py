"""Generation: what the model was fed, token by token, and where each sample ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moefps.errors import ArgumentError, CaptureError
from moefps.recording.batching import DECODER, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Generated", "check_sampling", "generate_batch"]

# One row a sample and one pass over each token is what a capture of generation means.
_REFUSED = {
    "num_beams": "beams are several sequences a sample",
    "num_return_sequences": "several sequences a sample",
    "prompt_lookup_num_tokens": "drafted tokens are fed more than once",
    "assistant_model": "drafted tokens are fed more than once",
    "assistant_early_exit": "drafted tokens are fed more than once",
    "penalty_alpha": "contrastive search feeds candidates",
    "dola_layers": "DoLa decodes with other layers",
    "stop_strings": "a sample that they end is padded, and nothing says where",
}
# What a capture sets itself, so that it knows which positions were fed.
_SET = {
    "max_new_tokens": "the number of new tokens is set by generate=",
    "max_length": "the number of new tokens is set by generate=",
    "stopping_criteria": "a sample that they end is padded, and nothing says where",
    "generation_config": "its settings are given one by one",
    "inputs": "the samples are the prompts",
    "inputs_embeds": "the samples are the prompts",
    "use_cache": "each position is fed once, which needs the cache",
    "pad_token_id": "it is the tokenizer's or the model's",
    "return_dict_in_generate": "only tokens are taken",
}


@dataclass(frozen=True, eq=False)
class Generated:
    """What came of a batch.

    Attributes
    ----------
    batch : Batch
        The batch with every position that the model was fed, prompt and new tokens.
    fed_ids : Tensor of shape [B, P]
        The token at each of these positions, in the stack that generates.
    new_ids : list of Tensor
        The new tokens of each sample, its end token included; the last was never fed.
    """

    batch: Batch
    fed_ids: Tensor
    new_ids: list[Tensor]


def check_sampling(sampling: Mapping[str, Any] | None, model: PreTrainedModel) -> dict[str, Any]:
    """Turn what the user asked of generation into arguments of ``generate``.

    Parameters
    ----------
    sampling : mapping or None
        None is greedy; else arguments such as ``temperature`` and ``top_p``.
    model : PreTrainedModel
        Its own generation settings count where the user says nothing, but for how a token is chosen.

    Raises
    ------
    ArgumentError
        Beams, several sequences a sample, or drafted tokens.
    """
    asked = dict(sampling or {})
    own = model.generation_config
    for name, reason in (_REFUSED | _SET).items():
        found = asked.get(name, getattr(own, name, None) if name in _REFUSED else None)
        # One sequence a sample is what is captured.
        if found is not None and not (name in _REFUSED and (found is False or found == 1)):
            shown = " ".join(repr(found).split())[:60]
            raise ArgumentError(f"generate: {name}={shown} cannot be captured: {reason}; accepted: greedy or sampling")
    if sampling is None:
        # A model's own settings for sampling would make transformers warn that greedy search leaves them unused.
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "min_p": None, "typical_p": None}
    return {"do_sample": True, **asked}


def generate_batch(
    model: Any, inputs: Mapping[str, Any], batch: Batch, *, n_new: int, pad_id: int, arguments: Mapping[str, Any]
) -> Generated:
    """Generate for a batch, and tell which positions were fed.

    Parameters
    ----------
    model : PreTrainedModel
        The model, in evaluation mode.
    inputs : mapping
        The batch's inputs on the model's device; prompts are padded on the left.
    batch : Batch
        The batch as it was laid out.
    n_new : int
        Most new tokens a sample.
    pad_id : int
        What stands after a sample's end while others go on.
    arguments : mapping
        Further arguments of ``generate``.
    """
    masked = dict(inputs)
    is_pair = DECODER in batch.valid
    mask = next(iter(batch.valid.values()))
    masked.setdefault("attention_mask", mask.to(device=masked["input_ids"].device, dtype=torch.int64))
    if is_pair:
        # generate makes the decoder's start itself, and a text for the decoder goes on from there.
        masked.pop("decoder_attention_mask", None)
    sequences = model.generate(
        **masked,
        max_new_tokens=n_new,
        use_cache=True,
        return_dict_in_generate=False,
        pad_token_id=pad_id,
        # With a static cache, transformers compiles every step into a CUDA graph, which writes over the tensors that
        # the hooks keep.
        **{"disable_compile": True, **arguments},
    ).cpu()
    prompt = batch.inputs["decoder_input_ids" if is_pair else "input_ids"]
    start = prompt.shape[1]
    if sequences.shape[1] <= start or not torch.equal(sequences[:, :start], prompt):
        raise CaptureError("generate: the output does not begin with the prompt, so its tokens cannot be placed")
    ends = _end_ids(model, arguments)
    new_ids = [_until_end(row[start:], ends) for row in sequences]
    fed = sequences[:, :-1]
    prompt_mask = batch.valid[DECODER] if is_pair else mask
    n_after = torch.tensor([len(ids) - 1 for ids in new_ids])
    after = torch.arange(fed.shape[1] - start) < n_after[:, None]
    valid = dict(batch.valid)
    valid[DECODER if is_pair else next(iter(valid))] = torch.cat([prompt_mask, after], dim=1)
    return Generated(replace(batch, valid=valid), fed, new_ids)


def _end_ids(model: Any, arguments: Mapping[str, Any]) -> Tensor:
    ends = arguments.get("eos_token_id", model.generation_config.eos_token_id)
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    return torch.tensor([int(end) for end in ends], dtype=torch.int64)


def _until_end(new: Tensor, ends: Tensor) -> Tensor:
    """Cut what follows a sample's own end token."""
    at = torch.isin(new, ends).nonzero()
    return new if len(at) == 0 else new[: int(at[0]) + 1]

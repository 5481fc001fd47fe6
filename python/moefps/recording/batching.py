"""Which samples are run together, and where their tokens stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moefps.errors import ArgumentError

if TYPE_CHECKING:
    from moefps.recording.encoding import Encoded

__all__ = ["Batch", "pad_batch", "plan_batches"]

ENCODER = "encoder"
DECODER = "decoder"
VISION = "vision"


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that go through the model together.

    Attributes
    ----------
    samples : tuple of int
        Numbers of the samples.
    inputs : mapping
        Arguments of the model's forward, on the CPU.
    valid : mapping of str to Tensor of shape [B, S]
        For every stack (None where the model has only one) which positions are tokens and no padding. The rows of a
        sample in the dump are its valid positions, stack after stack.
    """

    samples: tuple[int, ...]
    inputs: Mapping[str, Any]
    valid: Mapping[str | None, Tensor]

    @property
    def n_tokens(self) -> int:
        """Valid tokens of all stacks."""
        return sum(int(mask.sum()) for mask in self.valid.values())


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, *, alone: Sequence[bool], neutral_up_to: int | None = None
) -> list[list[int]]:
    """Group samples of like length, the longest first, so that what does not fit in memory shows at once.

    Parameters
    ----------
    lengths : sequence of int
        Positions that each sample takes.
    batch_tokens : int
        Most positions of a batch, padding included; a longer sample makes a batch by itself.
    alone : sequence of bool
        Samples that are run by themselves.
    neutral_up_to : int, optional
        The longest batch in which padding changes nothing; in longer ones all samples have the same length.

    Examples
    --------
    >>> plan_batches([3, 9, 4, 4], 8, alone=[False] * 4)
    [[1], [2, 3], [0]]
    """
    if batch_tokens < 1:
        raise ArgumentError(f"batch_tokens: got {batch_tokens}; accepted: at least 1")
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        last = batches[-1] if batches else None
        if (
            last is None
            or alone[i]
            or alone[last[0]]
            or (len(last) + 1) * lengths[last[0]] > batch_tokens
            or (neutral_up_to is not None and lengths[last[0]] > neutral_up_to and lengths[last[0]] != lengths[i])
        ):
            batches.append([i])
        else:
            last.append(i)
    return batches


def pad_batch(
    samples: Sequence[int],
    encoded: Sequence[Encoded],
    *,
    pad_id: int,
    encoder_stack: str | None = None,
    left: bool = False,
) -> Batch:
    """Lay samples side by side.

    Parameters
    ----------
    samples : sequence of int
        Which samples.
    encoded : sequence of Encoded
        All samples.
    pad_id : int
        Token id that fills what is no token; any valid one, since it is masked.
    encoder_stack : str, optional
        Name of the stack that reads ``input_ids``; None where there is only one.
    left : bool
        True pads on the left, as generation wants it.

    Returns
    -------
    Batch
    """
    chosen = [encoded[i] for i in samples]
    whole = chosen[0].inputs
    if whole is not None:
        mask = torch.ones_like(whole["input_ids"], dtype=torch.bool)
        if isinstance(whole.get("attention_mask"), Tensor) and whole["attention_mask"].shape == mask.shape:
            mask = whole["attention_mask"].bool()
        inputs = dict(whole)
    else:
        ids, mask = _pad([sample.input_ids for sample in chosen], pad_id, left=left)
        inputs = {"input_ids": ids}
        if chosen[0].mask is not None:
            mask = _pad_masks([sample.mask for sample in chosen])
            # Gaps keep their places: a model that counts positions by the mask would close them.
            inputs["position_ids"] = torch.arange(ids.shape[1]).repeat(len(chosen), 1)
        # Without padding there is no mask, so that a model is free to take its faster path.
        if not bool(mask.all()):
            inputs["attention_mask"] = mask.to(torch.int64)
    valid: dict[str | None, Tensor] = {encoder_stack: mask}
    decoder = [sample.decoder_ids for sample in chosen if sample.decoder_ids is not None]
    if decoder:
        ids, mask = _pad(decoder, pad_id, left=False)
        inputs["decoder_input_ids"] = ids
        if not bool(mask.all()):
            inputs["decoder_attention_mask"] = mask.to(torch.int64)
        valid[DECODER] = mask
    if any(sample.n_patches for sample in chosen):
        # Only whole processor outputs have patches, and those are run alone.
        valid[VISION] = torch.ones((1, chosen[0].n_patches), dtype=torch.bool)
    return Batch(tuple(samples), inputs, valid)


def _pad_masks(masks: Sequence[Tensor | None]) -> Tensor:
    """Lay masks side by side; of samples with aligned tokens each has one."""
    given = [mask for mask in masks if mask is not None]
    return torch.nn.utils.rnn.pad_sequence(given, batch_first=True, padding_value=False)


def _pad(rows: Sequence[Tensor], pad_id: int, *, left: bool) -> tuple[Tensor, Tensor]:
    side = "left" if left else "right"
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=pad_id, padding_side=side)
    lengths = torch.tensor([len(row) for row in rows])
    position = torch.arange(ids.shape[1])
    mask = position >= ids.shape[1] - lengths[:, None] if left else position < lengths[:, None]
    return ids, mask

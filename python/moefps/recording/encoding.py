"""Turning what the user hands over into what the model is fed: texts, token ids, chats or processor outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from moefps.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = ["Encoded", "encode_samples"]

# What a processor may give that a capture makes itself, or has no use for.
_NOT_TAKEN = {
    "decoder_input_ids": "decoder_texts=, a text or token ids for each sample",
    "labels": "one without them, as nothing is trained",
}


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sample, ready for the model.

    Attributes
    ----------
    input_ids : Tensor of shape [n]
        Token ids, int64, without padding.
    decoder_ids : Tensor of shape [m] or None
        What the decoder of an encoder-decoder is fed, its start token first.
    inputs : mapping or None
        A processor's whole output with batch size 1, where the sample is more than tokens; such a sample is run alone.
    n_cut : int
        Tokens that ``max_length`` cut off at the end.
    n_patches : int
        Patches that routers of a vision tower see, rows of their own in the dump.
    mask : Tensor of shape [n] or None
        Which of ``input_ids`` are tokens, where there are gaps between them; None where all are.
    labels : mapping of str to ndarray of shape [n]
        Further columns of the tokens.
    """

    input_ids: Tensor
    decoder_ids: Tensor | None = None
    inputs: Mapping[str, Any] | None = None
    n_cut: int = 0
    n_patches: int = 0
    mask: Tensor | None = None
    labels: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def n_positions(self) -> int:
        """Positions that the sample takes in a batch: tokens and gaps of all stacks, and patches."""
        return len(self.input_ids) + self.n_patches + (0 if self.decoder_ids is None else len(self.decoder_ids))

    @property
    def n_rows(self) -> int:
        """Rows of the sample in a dump: tokens of all stacks, and patches."""
        n_gaps = 0 if self.mask is None else int((~self.mask).sum())
        return self.n_positions - n_gaps


def encode_samples(
    texts: Sequence[Any],
    tokenizer: Any,
    *,
    vocabulary: int | None,
    has_decoder: bool = False,
    decoder_start: int | None = None,
    decoder_texts: Sequence[Any] | None = None,
    chat: bool = False,
    answer: bool = False,
    max_length: int | None = None,
) -> list[Encoded]:
    """Turn every sample into token ids.

    Parameters
    ----------
    texts : sequence
        A text, a sequence of token ids, a list of chat messages (with `chat`) or a processor's output for each sample.
    tokenizer : tokenizer or None
        Needed where a sample is text.
    vocabulary : int or None
        Rows of the model's embedding; token ids must be below.
    has_decoder : bool
        True for an encoder-decoder.
    decoder_start : int or None
        Start token of the decoder; None where it begins with what it is given.
    decoder_texts : sequence, optional
        What the decoder reads after its start token, a text or token ids for each sample.
    chat : bool
        True puts every text, as one user message, or list of messages through the tokenizer's chat template.
    answer : bool
        True ends a chat with the opening of the assistant's turn, as before generating.
    max_length : int, optional
        Most tokens that are kept of a text; the rest is cut off and counted.

    Returns
    -------
    list of Encoded
        In the order given.

    Raises
    ------
    ArgumentError
        A sample is none of these, is empty, or has a token id that the model has not; names the sample.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Sequence):
        raise ArgumentError(f"texts: got {_kind(texts)}; accepted: a list with a text or token ids for every sample")
    if len(texts) == 0:
        raise ArgumentError("texts: got no sample; accepted: at least one")
    if not has_decoder and decoder_texts is not None:
        raise ArgumentError("decoder_texts: the model has no decoder beside an encoder; leave it out")
    if has_decoder and decoder_start is None and decoder_texts is None:
        raise ArgumentError("decoder_texts: the model's decoder has no start token, so it needs texts of its own")
    if decoder_texts is not None and len(decoder_texts) != len(texts):
        raise ArgumentError(f"decoder_texts: got {len(decoder_texts):,}, expected one for each of {len(texts):,} texts")
    if max_length is not None and max_length < 1:
        raise ArgumentError(f"max_length: got {max_length}; accepted: at least 1")
    encoded = []
    for i, text in enumerate(texts):
        name = f"texts[{i}]"
        inputs = _processor_inputs(text, name) if isinstance(text, Mapping) else None
        if inputs is not None:
            # Cutting would part placeholders from their images, so the user does that in the processor.
            ids, n_cut = _attended_ids(inputs, name, answer=answer), 0
        else:
            ids = _token_ids(text, tokenizer, name, chat=chat, answer=answer)
            n_cut = 0 if max_length is None else max(0, len(ids) - max_length)
            ids = ids[: len(ids) - n_cut]
        _check_ids(ids, vocabulary, name)
        decoder_ids = None
        if has_decoder:
            start = torch.tensor([] if decoder_start is None else [decoder_start], dtype=torch.int64)
            rest = start[:0] if decoder_texts is None else _decoder_ids(decoder_texts[i], tokenizer, i, vocabulary)
            decoder_ids = torch.cat([start, rest])
        encoded.append(Encoded(ids, decoder_ids, inputs, n_cut))
    return encoded


def _token_ids(text: Any, tokenizer: Any, name: str, *, chat: bool, answer: bool) -> Tensor:
    is_chat = isinstance(text, Sequence) and len(text) > 0 and all(isinstance(turn, Mapping) for turn in text)
    if not isinstance(text, str) and not is_chat:
        return _given_ids(text, name)
    if tokenizer is None:
        raise ArgumentError(f"{name}: is text, and no tokenizer was given; pass tokenizer=... or token ids")
    if is_chat and not chat:
        raise ArgumentError(f"{name}: is a list of messages; pass chat=True to use the tokenizer's chat template")
    if not chat:
        return torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)
    messages = [{"role": "user", "content": text}] if isinstance(text, str) else list(text)
    if getattr(tokenizer, "chat_template", None) is None:
        raise ArgumentError("chat: the tokenizer has no chat template; leave chat out, or set tokenizer.chat_template")
    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=answer, tokenize=True, return_dict=False)
    # A template is a program of the model's author and raises what it likes.
    except Exception as error:
        raise ArgumentError(f"{name}: the chat template refuses it: {_first_line(error)}") from error
    return torch.tensor(ids, dtype=torch.int64)


def _decoder_ids(text: Any, tokenizer: Any, i: int, vocabulary: int | None) -> Tensor:
    name = f"decoder_texts[{i}]"
    if isinstance(text, str):
        if tokenizer is None:
            raise ArgumentError(f"{name}: is text, and no tokenizer was given; pass tokenizer=... or token ids")
        ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.int64)
    else:
        ids = _given_ids(text, name)
    _check_ids(ids, vocabulary, name)
    return ids


def _given_ids(ids: Any, name: str) -> Tensor:
    """Take token ids from a list, an array or a tensor."""
    try:
        array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=object)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{name}: got {_kind(ids)}; accepted: text, a list of token ids, a list of chat messages, "
            f"or a processor's output with batch size 1"
        )
    return torch.from_numpy(np.array(array.reshape(-1), dtype=np.int64))


def _processor_inputs(inputs: Mapping[str, Any], name: str) -> dict[str, Any]:
    if "input_ids" not in inputs:
        found = ", ".join(inputs) or "nothing"
        raise ArgumentError(f"{name}: a processor's output with {found}; accepted: one with input_ids")
    for key, way in _NOT_TAKEN.items():
        if inputs.get(key) is not None:
            raise ArgumentError(f"{name}: a processor's output with {key}; accepted: {way}")
    taken = {key: _tensor(value) for key, value in inputs.items() if key not in _NOT_TAKEN}
    ids = taken["input_ids"]
    if not isinstance(ids, Tensor) or ids.ndim not in {1, 2} or (ids.ndim == 2 and ids.shape[0] != 1):
        shape = tuple(ids.shape) if isinstance(ids, Tensor) else _kind(ids)
        raise ArgumentError(f"{name}: input_ids is {shape}; accepted: [n] or [1, n], one sample an entry")
    if ids.ndim == 1:
        for key, value in taken.items():
            if isinstance(value, Tensor) and value.shape == ids.shape:
                taken[key] = value[None]
    taken["input_ids"] = taken["input_ids"].to(torch.int64)
    return taken


def _tensor(value: Any) -> Any:
    """Give numbers as a tensor, and anything else as it is."""
    if not isinstance(value, np.ndarray | list):
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        return value
    return torch.from_numpy(array) if array.dtype.kind in "biuf" else value


def _attended_ids(inputs: Mapping[str, Any], name: str, *, answer: bool) -> Tensor:
    """Give the tokens of a processor's output without its padding."""
    ids: Tensor = inputs["input_ids"][0]
    mask = inputs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.shape != (1, len(ids)):
        return ids
    attended = mask[0].bool()
    if answer and len(ids) and not bool(attended[-1]):
        raise ArgumentError(f"{name}: ends in padding, and new tokens go on from there; pad on the left")
    return ids[attended]


def _check_ids(ids: Tensor, vocabulary: int | None, name: str) -> None:
    if len(ids) == 0:
        raise ArgumentError(f"{name}: has no token; accepted: at least one")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (vocabulary is not None and high >= vocabulary):
        found, accepted = (low, "0 or more") if low < 0 else (high, f"below {vocabulary:,}, the model's vocabulary")
        raise ArgumentError(f"{name}: has token id {found}; accepted: {accepted}")


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "one text"
    if isinstance(value, np.ndarray | Tensor):
        return f"an array of {value.dtype} with shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _first_line(error: Exception) -> str:
    lines: Iterable[str] = str(error).splitlines()
    return next(iter(lines), type(error).__name__)[:200]

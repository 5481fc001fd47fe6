"""Pieces of text through a tokenizer: ids, and the characters that each token stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps.pairing.pair_files import Segment

__all__ = ["Encoded", "check_tokenizer", "encode_segments", "load_tokenizer"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """A piece of text as tokens.

    Attributes
    ----------
    ids : ndarray of int64 [n]
        Token ids.
    is_blank : ndarray of bool [n]
        True where all characters of a token are white space.
    is_docstring : ndarray of bool [n]
        True where any character of a token lies in a docstring.
    """

    ids: npt.NDArray[np.int64]
    is_blank: npt.NDArray[np.bool_]
    is_docstring: npt.NDArray[np.bool_]


def load_tokenizer(tokenizer: Any) -> Any:
    """Load a tokenizer by its folder or name; an object is taken as it is.

    Raises
    ------
    ArgumentError
        It cannot be loaded.
    MissingExtraError
        transformers is not installed.
    """
    if not isinstance(tokenizer, str | os.PathLike):
        return tokenizer
    name = os.fspath(tokenizer)
    # A name on the hub is an owner and a model at most.
    is_path = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name
    if (is_path and not Path(name).exists()) or Path(name).is_file():
        problem = "is a file" if Path(name).is_file() else "does not exist"
        raise ArgumentError(f"tokenizer: {name} {problem}; accepted: a folder, or a name on the hub")
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"aligning needs {error.name}, which is not installed; run: pip install 'moefps[capture]'"
        ) from error
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError) as error:
        # The first sentence says it; what follows is advice for programmers.
        reason = " ".join(str(error).split()).partition(". ")[0][:300].rstrip(".") or type(error).__name__
        raise ArgumentError(f"tokenizer: {name} cannot be loaded: {reason}") from error


def check_tokenizer(tokenizer: Any) -> int:
    """Refuse a tokenizer that cannot say where its tokens stand in a text, or has nothing to fill gaps with.

    Returns
    -------
    int
        The pad id.

    Raises
    ------
    ArgumentError
        It is no fast tokenizer of transformers, or has no pad token.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ArgumentError(
            f"tokenizer: got a {type(tokenizer).__name__}; accepted: a fast tokenizer of transformers, which says at "
            f"which characters each token stands"
        )
    pad_id = getattr(tokenizer, "pad_token_id", None)
    if not isinstance(pad_id, int) or pad_id < 0:
        raise ArgumentError(
            "tokenizer: has no pad token, which fills the places where the assisted condition has nothing; set "
            "tokenizer.pad_token (--pad-token) to one of its tokens, such as the one that ends a text"
        )
    return pad_id


def encode_segments(tokenizer: Any, segments: Sequence[Segment]) -> list[Encoded]:
    """Put segments through a tokenizer, one by one and without tokens that it adds by itself.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        A tokenizer that `check_tokenizer` accepts.
    segments : sequence of Segment
        The pieces of one condition.

    Returns
    -------
    list of Encoded
        One for each; it has no token where the tokenizer makes nothing of the text.
    """
    if not segments:
        return []
    found = tokenizer(
        [segment.text for segment in segments],
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [
        _encoded(segment, ids, offsets)
        for segment, ids, offsets in zip(segments, found["input_ids"], found["offset_mapping"], strict=True)
    ]


def _encoded(segment: Segment, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Encoded:
    """Say of every token what its characters are: by its offsets, as byte pieces decode to nothing readable."""
    spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    starts, ends = spans[:, 0], spans[:, 1]
    # Counts of characters before each place, so that what a token holds is a difference.
    inked = np.cumsum([0] + [not character.isspace() for character in segment.text])
    is_blank = inked[ends] == inked[starts]
    # Some tokenizers leave white space out of their offsets; it belongs to the token that it stands before.
    reached = np.maximum.accumulate(np.concatenate([[0], ends]))[:-1]
    starts = np.where(starts > reached, reached, starts)
    inside = np.zeros(len(segment.text) + 1, dtype=np.int64)
    for start, end in segment.docstrings or ():
        inside[start + 1 : end + 1] = 1
    inside = np.cumsum(inside)
    return Encoded(
        ids=np.array(ids, dtype=np.int64),
        is_blank=is_blank,
        is_docstring=inside[ends] > inside[starts],
    )

"""`align_pairs`: the tokens of two conditions on the same coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, DataError
from moefps.io.atomic import atomic_file, check_destination
from moefps.io.pair_tokens import PairTokens, check_task_tokens, parse_pair_tokens, serialise_pair_tokens
from moefps.pairing.chatting import chat_segments
from moefps.pairing.encoding import Encoded, check_tokenizer, encode_segments, load_tokenizer
from moefps.pairing.pair_files import CANONICAL, TEMPLATE, Pair, Segment, read_pairs

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import PathLike

__all__ = ["align_pairs"]

_TOOL_KINDS = {"schema": "tool_schema", "call": "tool_call", "response": "tool_response"}


def align_pairs(
    pairs: PathLike | Iterable[Pair | Mapping[str, Any]],
    *,
    tokenizer: Any,
    chat: bool = False,
    output: PathLike | None = None,
    overwrite: bool = False,
) -> PairTokens:
    """Lay the assisted condition's tokens on the agentic condition's coordinates.

    Segments are tokenised one by one, without tokens that a tokenizer adds by itself, so that a text has the same ids
    in both conditions; the token that begins a text, where the tokenizer has one, stands once at the start of each.
    Segments with a key stand at the same positions in both. What only the assisted condition has (its instruction, its
    chat template) stands right before the next segment with a key, in the stretch that only the agentic condition
    fills; it is attended to, and never compared.

    Parameters
    ----------
    pairs : path, Pairs, or iterable of mapping
        What `build_pairs` gave or wrote.
    tokenizer : str, path or PreTrainedTokenizerFast
        A folder, a name on the hub, or a fast tokenizer of transformers.
    chat : bool
        True puts both conditions through the tokenizer's chat template. Tool responses are wrapped once: by the
        template where it does that, else by the tags of the pairs.
    output : path, optional
        A .json to write.
    overwrite : bool
        True replaces a file that exists.

    Returns
    -------
    PairTokens
        As `moefps.io.pair_tokens.read_pair_tokens` reads it.

    Raises
    ------
    ArgumentError
        The tokenizer is no fast one, has no pad token or no chat template, or gives different ids for one text.
    DataError
        A task's pair is malformed, its solution has no token, or the assisted condition's own words need more room than
        the agentic condition has there; names the task.
    FileError
        A file is missing or damaged, or the output cannot be written.

    Warns
    -----
    UserWarning
        The chat template does not know the roles of an agent, so that they were given in the user's words; or it opens
        the assistant's turn with thoughts, so that solutions stand in those.
    """
    if output is not None:
        check_destination(output, overwrite=overwrite, argument="output")
    found, name = read_pairs(pairs)
    tokenizer = load_tokenizer(tokenizer)
    pad_id = check_tokenizer(tokenizer)
    if chat:
        found, notes = chat_segments(tokenizer, found, name)
        for note in notes:
            warnings.warn(note, UserWarning, stacklevel=2)
    tasks = [check_task_tokens(_align(pair, tokenizer, pad_id, name), name) for pair in found]
    data = serialise_pair_tokens(tasks)
    if output is not None:
        with atomic_file(output, overwrite=overwrite) as file:
            file.write(data)
    return parse_pair_tokens(data, name if output is None else str(output))


def _align(pair: Pair, tokenizer: Any, pad_id: int, name: str) -> dict[str, Any]:
    """Align one pair: an object of the file."""
    where = f"{name}: task {pair.task_id}"
    agentic = _pieces(tokenizer, pair.agentic)
    assisted = _pieces(tokenizer, pair.assisted)
    spans = _spans(agentic)
    row = _join(encoded.ids for _, encoded in agentic)
    laid, mask = np.full(len(row), pad_id, dtype=np.int64), np.zeros(len(row), dtype=np.int64)
    at_key = {segment.key: span for (segment, _), span in zip(agentic, spans, strict=True) if segment.key is not None}
    ids_of = {segment.key: encoded.ids for segment, encoded in agentic if segment.key is not None}
    own: list[npt.NDArray[np.int64]] = []
    free = 0
    for segment, encoded in assisted:
        if segment.key is None:
            own.append(encoded.ids)
            continue
        if not np.array_equal(encoded.ids, ids_of[segment.key]):
            raise ArgumentError(
                f"{where}: the tokenizer gives the text of {segment.key} other ids in the assisted condition than in "
                f"the agentic one; accepted: a tokenizer that always splits a text in the same way"
            )
        start, end = at_key[segment.key]
        if start == end:
            # A text that the tokenizer makes nothing of has no place that others could stand before.
            continue
        if start < free:
            raise DataError(
                f"{where}: {segment.key} stands elsewhere among the shared segments in the agentic condition; "
                f"accepted: segments with keys in the same order in both"
            )
        words = _join(own)
        if len(words) > start - free:
            raise DataError(
                f"{where}: the assisted condition has {len(words):,} tokens of its own before {segment.key}, and the "
                f"agentic one has {start - free:,} there; accepted: at most as many"
            )
        laid[start - len(words) : start], mask[start - len(words) : start] = words, 1
        laid[start:end], mask[start:end] = encoded.ids, 1
        own, free = [], end
    return {
        "task_id": pair.task_id,
        "agentic_ids": row.tolist(),
        "assisted_aligned_ids": laid.tolist(),
        "assisted_aligned_attention_mask": mask.tolist(),
        **_positions(agentic, spans),
        "segments": [
            (segment.kind, segment.key, start, end)
            for (segment, _), (start, end) in zip(agentic, spans, strict=True)
            if start < end
        ],
    }


def _pieces(tokenizer: Any, segments: Sequence[Segment]) -> list[tuple[Segment, Encoded]]:
    """Tokenise a condition, the token that begins a text before it where the tokenizer has one."""
    encoded = encode_segments(tokenizer, segments)
    pieces = list(zip(segments, encoded, strict=True))
    begin = getattr(tokenizer, "bos_token_id", None)
    if begin is None or (segments[0].kind == TEMPLATE and _begins_with(encoded[0], begin)):
        return pieces
    nothing = np.zeros(1, dtype=np.bool_)
    return [(Segment(TEMPLATE, None, ""), Encoded(np.array([begin], dtype=np.int64), nothing, nothing)), *pieces]


def _begins_with(encoded: Encoded, token: int) -> bool:
    """Tell whether a chat template has written a token already, before anything but white space."""
    at = np.flatnonzero(encoded.ids == token)[:1]
    return len(at) > 0 and bool(encoded.is_blank[: at[0]].all())


def _spans(pieces: Sequence[tuple[Segment, Encoded]]) -> list[tuple[int, int]]:
    ends = np.cumsum([len(encoded.ids) for _, encoded in pieces]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _positions(
    pieces: Sequence[tuple[Segment, Encoded]], spans: Sequence[tuple[int, int]]
) -> dict[str, list[int] | dict[str, list[int]]]:
    """Say where in the row the solution and the parts of tool use are."""
    kinds = np.repeat([segment.kind for segment, _ in pieces], [end - start for start, end in spans])
    is_blank = np.concatenate([encoded.is_blank for _, encoded in pieces])
    is_docstring = np.concatenate([encoded.is_docstring for _, encoded in pieces])
    is_canonical = kinds == CANONICAL
    tool = {part: kinds == kind for part, kind in _TOOL_KINDS.items()}
    tool["response_docstring"] = tool["response"] & is_docstring
    tool["response_non_docstring"] = tool["response"] & ~is_docstring
    return {
        "canonical_positions": np.flatnonzero(is_canonical).tolist(),
        "canonical_non_ws_positions": np.flatnonzero(is_canonical & ~is_blank).tolist(),
        "tool_positions": {part: np.flatnonzero(chosen).tolist() for part, chosen in tool.items()},
    }


def _join(pieces: Iterable[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *pieces])

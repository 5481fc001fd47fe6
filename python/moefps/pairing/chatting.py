"""A condition through a tokenizer's chat template, its segments still known.

The template is given short marks in place of the texts, and the marks are then replaced by the segments. So every text
reaches the model as it is, whatever a template does to texts (trimming, escaping), and what only the template adds is
known as such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moefps.errors import ArgumentError
from moefps.io.pair_tokens import CONDITIONS
from moefps.pairing.docstrings import clip_spans
from moefps.pairing.pair_files import CANONICAL, TEMPLATE, Pair, Segment

__all__ = ["chat_segments"]

_ROLE_OF = {
    "system": "system",
    "tool_schema": "system",
    "user_prompt": "user",
    "assistant": "assistant",
    "tool_call": "assistant",
    "tool_response": "tool",
    CANONICAL: "assistant",
}
_MARK = re.compile(r"MoefpsMark(\d+)End")
# The tags as a template writes them around a response, with what stands between them and it: the last tag before is an
# opening one, and the first one after closes. And as they stand in the pairs.
_OPENING = re.compile(r"<tool_response>(?!.*</?tool_response>).*\Z", re.DOTALL)
_CLOSING = re.compile(r"\A(?:(?!</?tool_response>).)*</tool_response>", re.DOTALL)
_OWN_OPENING = re.compile(r"\A<tool_response>\n?")
_OWN_CLOSING = re.compile(r"\n?</tool_response>\n?\Z")
# What some templates open the assistant's turn with, and do not close: <think>, [THINK], <|begin_of_thought|>.
_THOUGHTS = re.compile(r"[<\[][\w|:]*(?:think|thought|reason)[\w|:]*[>\]]\s*\Z", re.IGNORECASE)
_THOUGHTS_NOTE = (
    "the chat template opens the assistant's turn with thoughts and does not close them, so solutions stand inside"
)


@dataclass(frozen=True)
class _Message:
    """Segments that are one message; several where a template wants fewer."""

    role: str
    parts: tuple[tuple[Segment, ...], ...]


class _RefusedError(Exception):
    """A template does not take a conversation as it is."""


def chat_segments(tokenizer: Any, pairs: Sequence[Pair], name: str) -> tuple[list[Pair], list[str]]:
    """Put the conditions of all pairs through a chat template.

    The solution follows the opening of the assistant's last turn. A template that knows no tool or no system role is
    given them in the user's words; the same for all pairs.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        A tokenizer with a chat template.
    pairs : sequence of Pair
        The pairs.
    name : str
        What to call their file in messages.

    Returns
    -------
    pairs : list of Pair
        The same with segments of the kind ``template`` between.
    notes : list of str
        How the template had to be helped, and what it does to the solution; none where it took the roles as they are.

    Raises
    ------
    ArgumentError
        The tokenizer has no chat template, or it refuses a task in every way; names the task.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ArgumentError("chat: the tokenizer has no chat template; leave chat out, or set tokenizer.chat_template")
    first: ArgumentError | None = None
    for note, arrange in _ARRANGEMENTS:
        try:
            found = [_chat_pair(tokenizer, pair, arrange, name) for pair in pairs]
        except ArgumentError as error:
            first = first or error
            continue
        notes = [note, _THOUGHTS_NOTE if any(map(_opens_thoughts, found)) else None]
        return found, [note for note in notes if note is not None]
    assert first is not None  # noqa: S101 (there are arrangements)
    raise first


def _chat_pair(tokenizer: Any, pair: Pair, arrange: Callable[[list[_Message]], list[_Message]], name: str) -> Pair:
    sides = {}
    for condition in CONDITIONS:
        messages, answer = _messages(pair.segments(condition))
        try:
            rendered = _render(tokenizer, arrange(messages))
        except _RefusedError as error:
            raise ArgumentError(f"{name}: task {pair.task_id}: the chat template refuses it: {error}") from error
        sides[condition] = (*rendered, *answer)
    return Pair(pair.task_id, **sides)


def _opens_thoughts(pair: Pair) -> bool:
    """Tell whether the template begins the assistant's turn with thoughts, which the solution would be part of."""
    last = next((segment for segment in reversed(pair.assisted) if segment.kind == TEMPLATE), None)
    return last is not None and _THOUGHTS.search(last.text) is not None


def _messages(segments: Sequence[Segment]) -> tuple[list[_Message], tuple[Segment, ...]]:
    """Part the segments into messages, and what the assistant says in its last turn."""
    messages: list[tuple[str, list[Segment]]] = []
    is_inside = False
    for segment in segments:
        role = _ROLE_OF[segment.kind]
        opens = segment.kind == "tool_response" and _OWN_OPENING.match(segment.text) is not None
        # A tag inside a response is part of its text.
        if not messages or messages[-1][0] != role or (opens and not is_inside):
            messages.append((role, []))
        messages[-1][1].append(segment)
        is_inside = (opens or (is_inside and role == "tool")) and _OWN_CLOSING.search(segment.text) is None
    answer = tuple(messages.pop()[1])
    return [_Message(role, (tuple(parts),)) for role, parts in messages], answer


def _as_they_are(messages: list[_Message]) -> list[_Message]:
    return messages


def _tools_as_user(messages: list[_Message]) -> list[_Message]:
    return [_Message("user" if message.role == "tool" else message.role, message.parts) for message in messages]


def _only_turns(messages: list[_Message]) -> list[_Message]:
    """Leave the user and the assistant alone, in turns."""
    joined: list[_Message] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if joined and joined[-1].role == role:
            joined[-1] = _Message(role, joined[-1].parts + message.parts)
        else:
            joined.append(_Message(role, message.parts))
    return joined


_ARRANGEMENTS: tuple[tuple[str | None, Callable[[list[_Message]], list[_Message]]], ...] = (
    (None, _as_they_are),
    ("the chat template takes no tool role, so tool responses are in the user's words", _tools_as_user),
    (
        (
            "the chat template takes only user and assistant in turns, so the system prompt and tool responses are in "
            "the user's words"
        ),
        _only_turns,
    ),
)


def _render(tokenizer: Any, messages: list[_Message]) -> Iterator[Segment]:
    """Give what the template makes of messages, texts as they are."""
    parts = [(message.role, part) for message in messages for part in message.parts]
    written, at = [], 0
    for message in messages:
        marks = "".join(f"MoefpsMark{at + i}End" for i in range(len(message.parts)))
        written.append({"role": message.role, "content": marks})
        at += len(message.parts)
    try:
        text = tokenizer.apply_chat_template(written, add_generation_prompt=True, tokenize=False)
    # A template is a program of the model's author and raises what it likes.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise _RefusedError(lines[0][:200]) from error
    # Template text at even places, numbers of marks at odd ones.
    pieces = _MARK.split(text)
    order = [int(number) for number in pieces[1::2]]
    odd = next((i for i in range(len(parts)) if order.count(i) != 1), None)
    if odd is not None:
        way = "leaves out" if odd not in order else "repeats"
        raise _RefusedError(f"it {way} a message of the role {parts[odd][0]}")
    return _laid_out(pieces[::2], [parts[i][1] for i in order])


def _laid_out(between: list[str], parts: list[tuple[Segment, ...]]) -> Iterator[Segment]:
    """Put the texts back between what the template wrote, and see to it that tool responses are wrapped once."""
    wrapped = _wrapped(between, parts)
    tail = ""
    for i, segments in enumerate(parts):
        before = between[i].removeprefix(tail)
        opening = _OPENING.search(before) if i in wrapped else None
        closing = _CLOSING.search(between[i + 1]) if i in wrapped else None
        yield from _template(before if opening is None else before[: opening.start()])
        if opening is not None:
            yield Segment("tool_response", None, opening[0])
        yield from _bare(segments) if i in wrapped else segments
        if closing is not None:
            yield Segment("tool_response", None, closing[0])
        tail = "" if closing is None else closing[0]
    yield from _template(between[-1].removeprefix(tail))


def _wrapped(between: list[str], parts: list[tuple[Segment, ...]]) -> set[int]:
    """Say which responses stand in tags of the template, one by one or several in a row."""
    found: set[int] = set()
    row: list[int] = []
    for i, segments in enumerate(parts):
        if segments[0].kind != "tool_response":
            row = []
        elif _OPENING.search(between[i]) is not None:
            row = [i]
        elif row:
            row.append(i)
        if row and _CLOSING.search(between[i + 1]) is not None:
            found.update(row)
            row = []
    return found


def _bare(segments: tuple[Segment, ...]) -> Iterator[Segment]:
    """Take the tags off a response, where they are not in a text that the other condition has, too."""
    for i, segment in enumerate(segments):
        opening = _OWN_OPENING.match(segment.text) if i == 0 and segment.key is None else None
        start = 0 if opening is None else opening.end()
        closing = _OWN_CLOSING.search(segment.text, start) if i == len(segments) - 1 and segment.key is None else None
        end = len(segment.text) if closing is None else closing.start()
        if start < end:
            spans = None if segment.docstrings is None else tuple(clip_spans(list(segment.docstrings), start, end))
            yield Segment(segment.kind, segment.key, segment.text[start:end], spans)


def _template(text: str) -> Iterator[Segment]:
    if text:
        yield Segment(TEMPLATE, None, text)

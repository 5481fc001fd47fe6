"""Messages of an agent, as tools record them, made into plain turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MalformedError", "Turn", "read_messages", "read_tools"]

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


class MalformedError(ValueError):
    """A trajectory is not what it must be; the message says what is wrong, and goes into a report."""


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes
    ----------
    role : {"system", "user", "assistant", "tool"}
        Who speaks.
    text : str
        What is said; may be empty.
    calls : tuple of str
        Tool calls of an assistant, each as JSON with ``name`` and ``arguments``.
    """

    role: str
    text: str
    calls: tuple[str, ...] = ()


def read_messages(messages: Any) -> list[Turn]:
    """Take messages in the style of OpenAI's chat completions.

    Parameters
    ----------
    messages : sequence of mapping
        Each has a ``role`` and a ``content``: text, None, or a list of text parts. An assistant may have
        ``tool_calls``, or the older ``function_call``; and a ``refusal`` in place of the content. What it thought
        (``reasoning_content`` and the like, parts of the type ``thinking``) is no part of what was said, and is left
        out, as chat templates leave it out of earlier turns.

    Returns
    -------
    list of Turn

    Raises
    ------
    MalformedError
        A message has no role, an unknown one, or content that is no text.

    Examples
    --------
    >>> call = {"type": "function", "function": {"name": "ls", "arguments": "{}"}}
    >>> read_messages([{"role": "assistant", "content": None, "tool_calls": [call]}])
    [Turn(role='assistant', text='', calls=('{"name": "ls", "arguments": {}}',))]
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise MalformedError("has no list of messages")
    if not messages:
        raise MalformedError("has no message")
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise MalformedError(f"message {number} is no object")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            shown = repr(role[:40]) if isinstance(role, str) else "missing" if role is None else "no text"
            raise MalformedError(f"the role of message {number} is {shown}")
        calls = _calls(message, number) if role == "assistant" else ()
        said = message.get("content")
        turns.append(Turn(_ROLES[role], _content(message.get("refusal") if said is None else said, number), calls))
    return turns


def read_tools(tools: Any) -> tuple[str, ...]:
    """Take the list of tools, each as JSON.

    Raises
    ------
    MalformedError
        It is no list of objects.
    """
    if tools is None:
        return ()
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise MalformedError("tools is no list of objects")
    return tuple(_json(tool, "tools") for tool in tools)


def _content(content: Any, number: int) -> str:
    """Give the text of a message; parts of it are put one after another."""
    if content is None:
        return ""
    parts = [content] if isinstance(content, str) else content
    if not isinstance(parts, Sequence) or isinstance(parts, bytes):
        raise MalformedError(f"the content of message {number} is no text")
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _THOUGHTS:
            continue
        text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            shown = f", but {kind[:40]!r}" if isinstance(kind, str) else ""
            raise MalformedError(f"the content of message {number} has a part that is no text{shown}")
        texts.append(text)
    return _checked("".join(texts), f"message {number}")


def _calls(message: Mapping[str, Any], number: int) -> tuple[str, ...]:
    calls = message.get("tool_calls")
    if calls is None and message.get("function_call") is not None:
        calls = [{"function": message["function_call"]}]
    if calls is None:
        return ()
    if isinstance(calls, str | Mapping) or not isinstance(calls, Sequence):
        raise MalformedError(f"tool_calls of message {number} is no list")
    return tuple(_call(call, number) for call in calls)


def _call(call: Any, number: int) -> str:
    """Write a call as JSON; arguments that are JSON already stay as the model wrote them."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise MalformedError(f"a tool call of message {number} has no function with a name")
    arguments = function.get("arguments")
    where = f"a tool call of message {number}"
    if isinstance(arguments, str) and _is_object(arguments):
        written = _checked(arguments, where)
    else:
        written = _json({} if arguments is None else arguments, where)
    return f'{{"name": {_json(function["name"], where)}, "arguments": {written}}}'


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _json(value: Any, where: str) -> str:
    try:
        return _checked(json.dumps(value, ensure_ascii=False, allow_nan=False), where)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, MalformedError):
            raise
        raise MalformedError(f"{where} holds what JSON cannot") from error


def _checked(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError(f"{where} holds half of a surrogate pair, which is no character") from error
    return text

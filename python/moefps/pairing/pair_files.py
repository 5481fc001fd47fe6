"""The file of pairs: two conditions of every task, as segments of text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError, DataError, FileError
from moefps.io.pair_tokens import CONDITIONS
from moefps.io.strict_json import show
from moefps.pairing.problems import is_unicode, name_of_task, read_lines

if TYPE_CHECKING:
    from moefps._typing import PathLike

__all__ = ["CANONICAL", "KINDS", "TEMPLATE", "Pair", "Segment", "read_pairs", "serialise_pairs"]

KINDS = ("system", "tool_schema", "user_prompt", "assistant", "tool_call", "tool_response", "canonical")
"""What a segment of a pair can be."""

CANONICAL = "canonical"
"""Kind and key of the solution, the last segment of both conditions."""

TEMPLATE = "template"
"""Kind of what only a tokenizer's chat template, or its begin-of-text token, adds."""


@dataclass(frozen=True)
class Segment:
    """A piece of a condition's text.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    key : str or None
        A name where the other condition has the same text under the same name; only such segments are compared.
    text : str
        Not empty.
    docstrings : tuple of (int, int) or None
        Where the docstrings are in a piece of Python source, half-open spans in characters; None for other text.
    """

    kind: str
    key: str | None
    text: str
    docstrings: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Pair:
    """Two conditions of one task.

    Attributes
    ----------
    task_id : str
        Name of the task.
    agentic, assisted : tuple of Segment
        The text of each condition, in order; both end with the canonical solution.
    """

    task_id: str
    agentic: tuple[Segment, ...]
    assisted: tuple[Segment, ...]

    def segments(self, condition: str) -> tuple[Segment, ...]:
        """Give the segments of a condition."""
        return self.agentic if condition == "agentic" else self.assisted


def serialise_pairs(pairs: Iterable[Pair]) -> bytes:
    """Write pairs as the bytes of a .jsonl."""
    lines = []
    for pair in pairs:
        record = {"task_id": pair.task_id, **{name: [_record(s) for s in pair.segments(name)] for name in CONDITIONS}}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines).encode("utf-8")


def read_pairs(pairs: PathLike | Iterable[Pair | Mapping[str, Any]]) -> tuple[list[Pair], str]:
    """Read pairs, and check all that they must satisfy.

    Parameters
    ----------
    pairs : path, or iterable of Pair and mapping
        A .jsonl as `moefps.build_pairs` writes it, or its rows.

    Returns
    -------
    pairs : list of Pair
        In order.
    name : str
        What to call the file in messages.

    Raises
    ------
    ArgumentError
        It is neither a path nor pairs.
    FileError
        The file is missing, empty, or a line is not JSON.
    DataError
        A task is there twice, or its segments are not what they must be; names the task.
    """
    if isinstance(pairs, str | os.PathLike):
        name = os.fspath(pairs)
        rows = list(_parsed_lines(name))
    else:
        if not isinstance(pairs, Iterable):
            raise ArgumentError(f"pairs: got a {type(pairs).__name__}; accepted: a file, or pairs")
        name, rows = "pairs", [(f"entry {i}", row) for i, row in enumerate(pairs)]
    found: list[Pair] = []
    seen: set[str] = set()
    for place, row in rows:
        pair = row if isinstance(row, Pair) else _pair(row, name, place)
        _check(pair, f"{name}: task {pair.task_id}")
        if pair.task_id in seen:
            raise DataError(f"{name}: task {pair.task_id} is there twice; accepted: every task once")
        seen.add(pair.task_id)
        found.append(pair)
    if not found:
        raise DataError(f"{name}: holds no pair; accepted: at least one")
    return found, name


def _record(segment: Segment) -> dict[str, Any]:
    record: dict[str, Any] = {"kind": segment.kind, "key": segment.key, "text": segment.text}
    if segment.docstrings is not None:
        record["docstrings"] = [list(span) for span in segment.docstrings]
    return record


def _parsed_lines(name: str) -> Iterable[tuple[str, Any]]:
    for number, line in enumerate(read_lines(name).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number:,}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FileError(f"{name}: line {number:,} is not JSON; accepted: a pair a line") from error


def _pair(row: Any, name: str, place: str) -> Pair:
    task_id = name_of_task(row.get("task_id")) if isinstance(row, Mapping) else None
    if task_id is None:
        raise DataError(f"{name}: {place} is no object with a task_id; accepted: task_id, agentic and assisted")
    sides = {}
    for condition in CONDITIONS:
        segments = row.get(condition)
        if not isinstance(segments, list | tuple):
            raise DataError(f"{name}: task {task_id}: {condition} is no list; accepted: a list of segments")
        sides[condition] = tuple(
            _segment(given, f"{name}: task {task_id}: {condition}[{i}]") for i, given in enumerate(segments)
        )
    return Pair(task_id, **sides)


def _segment(given: Any, where: str) -> Segment:
    if isinstance(given, Segment):
        return given
    if not isinstance(given, Mapping) or not {"kind", "key", "text"} <= set(given):
        raise DataError(f"{where} is no segment; accepted: kind, key and text")
    spans = given.get("docstrings")
    if spans is not None:
        is_spans = isinstance(spans, list | tuple) and all(
            isinstance(span, list | tuple) and len(span) == 2 and all(type(edge) is int for edge in span)
            for span in spans
        )
        if not is_spans:
            raise DataError(f"{where}: docstrings is no list of spans; accepted: [start, end] in characters")
        spans = tuple((span[0], span[1]) for span in spans)
    return Segment(given["kind"], given["key"], given["text"], spans)


def _check(pair: Pair, where: str) -> None:
    """Refuse segments that are not what they must be, by themselves or beside the other condition's."""
    for condition in CONDITIONS:
        segments = pair.segments(condition)
        for i, segment in enumerate(segments):
            _check_segment(segment, f"{where}: {condition}[{i}]")
        keys = [segment.key for segment in segments if segment.key is not None]
        if len(set(keys)) < len(keys):
            twice = next(key for i, key in enumerate(keys) if key in keys[:i])
            raise DataError(f"{where}: {condition} has the key {twice!r} twice; accepted: every key once")
        n_canonical = sum(segment.kind == CANONICAL for segment in segments)
        if n_canonical != 1 or segments[-1].kind != CANONICAL or segments[-1].key is None:
            raise DataError(
                f"{where}: {condition} has {n_canonical} canonical segments; accepted: one, the last, with a key"
            )
    texts = {segment.key: segment.text for segment in pair.agentic if segment.key is not None}
    for segment in pair.assisted:
        if segment.key is not None and texts.pop(segment.key, None) != segment.text:
            raise DataError(f"{where}: the text of the key {segment.key!r} is not the same in both conditions")
    if texts:
        raise DataError(
            f"{where}: the key {next(iter(texts))!r} is in one condition only; accepted: null where the other lacks it"
        )


def _check_segment(segment: Segment, where: str) -> None:
    # What a file holds is not yet what the types say.
    kind: Any = segment.kind
    key: Any = segment.key
    text: Any = segment.text
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"{where}: kind is {show(kind)}; accepted: {', '.join(KINDS)}")
    if key is not None and (not isinstance(key, str) or not key):
        raise DataError(f"{where}: key is {show(key)}; accepted: null, or a name")
    if not isinstance(text, str) or not text:
        raise DataError(f"{where}: text is {show(text)}; accepted: text that is not empty")
    if not is_unicode(text):
        raise DataError(f"{where}: text holds half of a surrogate pair, which is no character")
    at = 0
    for start, end in segment.docstrings or ():
        if not at <= start < end <= len(segment.text):
            raise DataError(
                f"{where}: the docstring {start} to {end} does not fit; accepted: rising spans within the text's "
                f"{len(segment.text):,} characters"
            )
        at = end

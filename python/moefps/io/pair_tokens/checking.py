"""What every task of a file of aligned tokens must satisfy."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import DataError
from moefps.io.pair_tokens.task import TOOL_POSITIONS, PairSegment, TaskTokens
from moefps.io.strict_json import show, show_text

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["check_task_tokens"]

_KIND_OF = {"schema": "tool_schema", "call": "tool_call", "response": "tool_response"}
_ID_LIMIT = 1 << 31


def check_task_tokens(record: Any, name: str, place: str = "") -> TaskTokens:
    """Check one task of such a file.

    Parameters
    ----------
    record : mapping
        ``task_id`` and the lists that `TaskTokens` has. Further keys are ignored.
    name : str
        The file, for messages.
    place : str
        What to call the task in messages where it has no name.

    Returns
    -------
    TaskTokens

    Raises
    ------
    DataError
        A list is missing, of another length or holds what it must not; the segments leave a gap or overlap; in a
        segment with a key the assisted condition has no token, or another one; there is no canonical position, or one
        outside the solution.

    Examples
    --------
    >>> tool = {"schema": [], "call": [], "response": [], "response_docstring": [], "response_non_docstring": []}
    >>> task = check_task_tokens(
    ...     {
    ...         "task_id": "t",
    ...         "agentic_ids": [7, 8, 9],
    ...         "assisted_aligned_ids": [0, 8, 9],
    ...         "assisted_aligned_attention_mask": [0, 1, 1],
    ...         "canonical_positions": [1, 2],
    ...         "canonical_non_ws_positions": [2],
    ...         "tool_positions": tool,
    ...         "segments": [["system", None, 0, 1], ["canonical", "canonical", 1, 3]],
    ...     },
    ...     "pairs.json",
    ... )
    >>> task.is_shared.tolist()
    [False, True, True]
    """
    if not isinstance(record, dict):
        raise DataError(f"{name}: {place} is {show(record)}; accepted: an object for every task")
    task_id = record.get("task_id")
    if not isinstance(task_id, str) or len(task_id.splitlines()) != 1:
        raise DataError(f"{name}: {place}: task_id is {show(task_id)}; accepted: a text on one line, not empty")
    missing = next((field.name for field in fields(TaskTokens) if field.name not in record), None)
    check = _Checker(f"{name}: task {show_text(task_id)}")
    if missing is not None:
        raise check.refuse(f"has no {missing}; accepted: all of {', '.join(f.name for f in fields(TaskTokens))}")
    agentic = check.numbers("agentic_ids", record["agentic_ids"], _ID_LIMIT)
    if not len(agentic):
        raise check.refuse("has no token; accepted: at least one")
    n = len(agentic)
    task = TaskTokens(
        task_id=task_id,
        agentic_ids=agentic,
        assisted_aligned_ids=check.numbers("assisted_aligned_ids", record["assisted_aligned_ids"], _ID_LIMIT, length=n),
        assisted_aligned_attention_mask=check.numbers(
            "assisted_aligned_attention_mask", record["assisted_aligned_attention_mask"], 2, length=n
        ),
        canonical_positions=check.positions("canonical_positions", record["canonical_positions"], n),
        canonical_non_ws_positions=check.positions(
            "canonical_non_ws_positions", record["canonical_non_ws_positions"], n
        ),
        tool_positions=check.tool_positions(record["tool_positions"], n),
        segments=check.segments(record["segments"], n),
    )
    check.shared(task)
    check.groups(task)
    return task


class _Checker:
    """Checks the parts of one task, and words what is wrong."""

    def __init__(self, where: str) -> None:
        self._where = where

    def refuse(self, problem: str) -> DataError:
        return DataError(f"{self._where}: {problem}")

    def numbers(self, field: str, found: Any, limit: int, *, length: int | None = None) -> npt.NDArray[np.int64]:
        """Take a list of integers of 0 to ``limit - 1``."""
        if not isinstance(found, list | tuple):
            raise self.refuse(f"{field} is {show(found)}; accepted: a list of integers")
        # Of the whole list at once: rows are long, and files of many tasks are read by every command.
        is_fine = set(map(type, found)) <= {int} and (not found or (min(found) >= 0 and max(found) < limit))
        if not is_fine:
            wrong = next(i for i, value in enumerate(found) if type(value) is not int or not 0 <= value < limit)
            raise self.refuse(f"{field}[{wrong}] is {show(found[wrong])}; accepted: integers of 0 to {limit - 1:,}")
        if length is not None and len(found) != length:
            raise self.refuse(f"{field} has {len(found):,} entries; accepted: {length:,}, as agentic_ids")
        return np.array(found, dtype=np.int64)

    def positions(self, field: str, found: Any, n: int) -> npt.NDArray[np.int64]:
        """Take a list of positions of the row, each larger than the one before."""
        positions = self.numbers(field, found, n)
        falls = np.flatnonzero(np.diff(positions) <= 0)
        if len(falls):
            raise self.refuse(f"{field}[{falls[0] + 1}] is not larger than the one before; accepted: a rising list")
        return positions

    def tool_positions(self, found: Any, n: int) -> dict[str, npt.NDArray[np.int64]]:
        if not isinstance(found, dict):
            raise self.refuse(f"tool_positions is {show(found)}; accepted: an object of lists of positions")
        missing = next((part for part in TOOL_POSITIONS if part not in found), None)
        if missing is not None:
            raise self.refuse(f"tool_positions has no {missing}; accepted: {', '.join(TOOL_POSITIONS)}")
        return {part: self.positions(f"tool_positions.{part}", found[part], n) for part in TOOL_POSITIONS}

    def segments(self, found: Any, n: int) -> tuple[PairSegment, ...]:
        """Take segments that follow each other from 0 to n."""
        if not isinstance(found, list | tuple):
            raise self.refuse(f"segments is {show(found)}; accepted: a list of [kind, key, start, end]")
        segments, at = [], 0
        for i, entry in enumerate(found):
            if not isinstance(entry, list | tuple) or len(entry) != 4:
                raise self.refuse(f"segments[{i}] is {show(entry)}; accepted: [kind, key, start, end]")
            kind, key, start, end = entry
            if not isinstance(kind, str) or not kind or not (key is None or (isinstance(key, str) and key)):
                raise self.refuse(f"segments[{i}] has kind {show(kind)} and key {show(key)}; accepted: texts, or null")
            if type(start) is not int or type(end) is not int or start != at or not start < end <= n:
                raise self.refuse(
                    f"segments[{i}] is {show(start)} to {show(end)}, expected a start of {at:,} and an end after it, "
                    f"at most {n:,}: segments cover the row without gaps"
                )
            segments.append(PairSegment(kind, key, start, end))
            at = end
        if at != n:
            raise self.refuse(f"segments end at {at:,} of {n:,} positions; accepted: they cover the row without gaps")
        return tuple(segments)

    def shared(self, task: TaskTokens) -> None:
        """Refuse a segment with a key whose tokens are not in both conditions."""
        is_absent = task.assisted_aligned_attention_mask == 0
        is_other = task.agentic_ids != task.assisted_aligned_ids
        for segment in task.segments:
            if segment.key is None:
                continue
            rows = slice(segment.start, segment.end)
            if is_absent[rows].any():
                at = segment.start + int(is_absent[rows].argmax())
                raise self.refuse(
                    f"the assisted condition has no token at position {at:,}, in the segment {segment.key}; accepted: "
                    f"a mask of 1 wherever a segment has a key"
                )
            if is_other[rows].any():
                at = segment.start + int(is_other[rows].argmax())
                raise self.refuse(
                    f"token ids differ at position {at:,}, in the segment {segment.key}: {task.agentic_ids[at]} and "
                    f"{task.assisted_aligned_ids[at]}; accepted: equal ones wherever a segment has a key"
                )

    def groups(self, task: TaskTokens) -> None:
        """Refuse lists of positions that do not fit the segments, or each other."""
        if not len(task.canonical_positions):
            raise self.refuse("canonical_positions is empty; accepted: at least one position")
        self._inside(task, "canonical_positions", task.canonical_positions, "canonical")
        lost = np.setdiff1d(task.canonical_non_ws_positions, task.canonical_positions)
        if len(lost):
            raise self.refuse(
                f"canonical_non_ws_positions has {lost[0]}, and canonical_positions has not; accepted: a part of those"
            )
        parts = task.tool_positions
        for part, kind in _KIND_OF.items():
            self._inside(task, f"tool_positions.{part}", parts[part], kind)
        split = np.concatenate([parts["response_docstring"], parts["response_non_docstring"]])
        if not np.array_equal(np.sort(split), parts["response"]):
            raise self.refuse(
                "tool_positions.response is not response_docstring and response_non_docstring together; accepted: "
                "every position of it in one of the two"
            )

    def _inside(self, task: TaskTokens, field: str, positions: npt.NDArray[np.int64], kind: str) -> None:
        is_inside = np.zeros(task.n_positions, dtype=np.bool_)
        for segment in task.segments:
            is_inside[segment.start : segment.end] = segment.kind == kind
        outside = positions[~is_inside[positions]]
        if len(outside):
            raise self.refuse(f"{field} has {outside[0]}, which is in no {kind} segment; accepted: positions in one")

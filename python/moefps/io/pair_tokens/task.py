"""The rows of a file of aligned tokens: two conditions of a task on the same coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

__all__ = ["CONDITIONS", "TOOL_POSITIONS", "PairSegment", "PairTokens", "TaskTokens"]

CONDITIONS = ("agentic", "assisted")
"""The two conditions of a pair."""

TOOL_POSITIONS = ("schema", "call", "response", "response_docstring", "response_non_docstring")
"""The lists of positions that ``tool_positions`` has."""


class PairSegment(NamedTuple):
    """A stretch of the row: positions ``start`` to ``end - 1``.

    Attributes
    ----------
    kind : str
        What stands there in the agentic condition: ``system``, ``tool_schema``, ``user_prompt``, ``assistant``,
        ``tool_call``, ``tool_response``, ``canonical`` or ``template``.
    key : str or None
        Name of a text that both conditions have; None where only the agentic one has it.
    start, end : int
        Half-open, in agentic coordinates.
    """

    kind: str
    key: str | None
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class TaskTokens:
    """One task, both conditions on one row of S positions.

    Attributes
    ----------
    task_id : str
        Name of the task.
    agentic_ids : ndarray of int64 [S]
        Token ids of the agentic condition.
    assisted_aligned_ids : ndarray of int64 [S]
        Token ids of the assisted condition; the pad id where it has nothing.
    assisted_aligned_attention_mask : ndarray of int64 [S]
        1 where the assisted condition has a token, else 0.
    canonical_positions : ndarray of int64
        Positions of the solution's tokens.
    canonical_non_ws_positions : ndarray of int64
        Those of them whose text is not all white space.
    tool_positions : mapping of str to ndarray of int64
        ``schema``, ``call``, ``response`` and its two parts, ``response_docstring`` and ``response_non_docstring``.
    segments : tuple of PairSegment
        They cover the row without gaps.
    """

    task_id: str
    agentic_ids: npt.NDArray[np.int64]
    assisted_aligned_ids: npt.NDArray[np.int64]
    assisted_aligned_attention_mask: npt.NDArray[np.int64]
    canonical_positions: npt.NDArray[np.int64]
    canonical_non_ws_positions: npt.NDArray[np.int64]
    tool_positions: Mapping[str, npt.NDArray[np.int64]]
    segments: tuple[PairSegment, ...]

    @property
    def n_positions(self) -> int:
        """Length of the row, S."""
        return len(self.agentic_ids)

    @property
    def is_shared(self) -> npt.NDArray[np.bool_]:
        """Which positions lie in a segment with a key, [S]: those that can be compared."""
        shared = np.zeros(self.n_positions, dtype=np.bool_)
        for segment in self.segments:
            shared[segment.start : segment.end] = segment.key is not None
        return shared

    def ids(self, condition: str) -> npt.NDArray[np.int64]:
        """Give the token ids of a condition, [S]."""
        return self.agentic_ids if condition == "agentic" else self.assisted_aligned_ids

    def mask(self, condition: str) -> npt.NDArray[np.bool_]:
        """Tell where a condition has a token, [S]."""
        if condition == "agentic":
            return np.ones(self.n_positions, dtype=np.bool_)
        return self.assisted_aligned_attention_mask.astype(np.bool_)


@dataclass(frozen=True, eq=False)
class PairTokens:
    """All tasks of a file of aligned tokens.

    Attributes
    ----------
    tasks : tuple of TaskTokens
        In the order of the file.
    sha256 : str
        Of the file's bytes, in hexadecimal: what links a dump to the file.
    source : str
        The file, in words.
    """

    tasks: tuple[TaskTokens, ...]
    sha256: str
    source: str

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[TaskTokens]:
        return iter(self.tasks)

    def __getitem__(self, index: int) -> TaskTokens:
        return self.tasks[index]

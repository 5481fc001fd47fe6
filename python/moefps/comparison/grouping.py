"""Groups of tokens, which may overlap, made of classes, which do not: each compared position is in one class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moefps.errors import ArgumentError

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array
    from moefps.io.pair_tokens import TaskTokens

__all__ = ["ALL", "CANONICAL", "PAIR_GROUPS", "TOOL", "Grouping", "classify", "distances_to_response", "group_values"]

ALL = "all"
TOOL = "tool_response_non_docstring"
"""The group whose shift of usage may leak."""
CANONICAL = "canonical_non_ws"
"""The group into which it may leak, and whose distance to the tool's answer counts."""

_CLASSES = (
    *(CANONICAL, "canonical_ws", "tool_response_docstring", TOOL),
    *("tool_schema", "tool_call", "user_prompt", "other"),
)
_PARTS = {
    ALL: _CLASSES,
    "canonical": (CANONICAL, "canonical_ws"),
    CANONICAL: (CANONICAL,),
    "tool_schema": ("tool_schema",),
    "tool_call": ("tool_call",),
    "tool_response": ("tool_response_docstring", TOOL),
    "tool_response_docstring": ("tool_response_docstring",),
    TOOL: (TOOL,),
    "user_prompt": ("user_prompt",),
}
_TOOL_CLASSES = {
    "schema": "tool_schema",
    "call": "tool_call",
    "response_docstring": "tool_response_docstring",
    "response_non_docstring": TOOL,
}


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups, and the classes that each of them is made of.

    Attributes
    ----------
    names : tuple of str [G]
        The groups; the first is `ALL`.
    members : ndarray of bool [G, K]
        Which of K classes belong to each group.
    """

    names: tuple[str, ...]
    members: npt.NDArray[np.bool_]

    @property
    def n_classes(self) -> int:
        """Number of classes, K; a token with this number is in no group."""
        return int(self.members.shape[1])

    def place(self, name: str) -> int | None:
        """Give the number of a group, None where there is none of that name."""
        return self.names.index(name) if name in self.names else None

    def add_up(self, by_class: npt.NDArray[np.generic], axis: int) -> Float64Array:
        """Add classes up to groups, along an axis of K.

        Examples
        --------
        >>> groups = Grouping(("all", "first"), np.array([[True, True], [True, False]]))
        >>> groups.add_up(np.array([[3, 4]]), axis=1).tolist()
        [[7.0, 3.0]]
        """
        moved = np.moveaxis(by_class, axis, 0).astype(np.float64)
        # One addition after the other, so that exchanged sides give the same sums to the last bit.
        summed = [sum((moved[k] for k in np.flatnonzero(row)), np.zeros(moved.shape[1:])) for row in self.members]
        return np.moveaxis(np.stack(summed), 0, axis)

    def only(self, classes: npt.NDArray[np.int64]) -> Grouping:
        """Give the same groups of fewer classes."""
        return Grouping(self.names, self.members[:, classes])

    def check_wanted(self, wanted: object) -> tuple[str, ...]:
        """Give the groups that are asked for, all when None.

        Raises
        ------
        ArgumentError
            There is no such group, or none is asked for.
        """
        if wanted is None:
            return self.names
        accepted = ", ".join(self.names)
        if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not len(wanted):
            raise ArgumentError(f"groups: {wanted!r}; accepted: a list of {accepted}")
        unknown = [name for name in wanted if name not in self.names]
        if unknown:
            raise ArgumentError(f"groups: {unknown[0]!r}; accepted: {accepted}")
        return tuple(name for name in self.names if name in wanted)


PAIR_GROUPS = Grouping(tuple(_PARTS), np.array([[name in part for name in _CLASSES] for part in _PARTS.values()]))
"""The groups of positions of a pair."""


def group_values(column: str, values: Sequence[object]) -> Grouping:
    """Make a group of each value of a column, and one of all; the last class is of tokens without a value.

    Raises
    ------
    ArgumentError
        Two groups would have one name.
    """
    names = [str(value) for value in values]
    if ALL in names:
        raise ArgumentError(f"by: column {column!r} has the value {ALL!r}, which is the name of all tokens together")
    members = np.vstack([np.ones(len(names) + 1, dtype=np.bool_), np.eye(len(names), len(names) + 1, dtype=np.bool_)])
    return Grouping((ALL, *names), members)


def classify(task: TaskTokens) -> npt.NDArray[np.uint32]:
    """Give the class of each position of a task, [S], in agentic coordinates."""
    number = {name: i for i, name in enumerate(_CLASSES)}
    found = np.full(task.n_positions, number["other"], dtype=np.uint32)
    for segment in task.segments:
        if segment.kind == "user_prompt":
            found[segment.start : segment.end] = number["user_prompt"]
    found[task.canonical_positions] = number["canonical_ws"]
    found[task.canonical_non_ws_positions] = number[CANONICAL]
    for part, name in _TOOL_CLASSES.items():
        found[task.tool_positions[part]] = number[name]
    return found


def distances_to_response(task: TaskTokens) -> npt.NDArray[np.int64]:
    """Give how far each position is past the last token of the last tool response before it, [S].

    Returns
    -------
    ndarray of int64 [S]
        1 for the position right after it; 0 where no response has ended before.
    """
    found = np.zeros(task.n_positions, dtype=np.int64)
    end = None
    for segment in task.segments:
        if segment.kind == "tool_response":
            end = segment.end
        elif end is not None:
            found[segment.start : segment.end] = np.arange(segment.start, segment.end) - (end - 1)
    return found

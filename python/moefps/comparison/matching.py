"""Which token of one dump is which of another: what is compared, of which task, and in which group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.comparison.grouping import PAIR_GROUPS, classify, distances_to_response
from moefps.comparison.sides import Side, check_layouts, common_tasks, open_side
from moefps.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from moefps._typing import IndexArray
    from moefps.comparison.grouping import Grouping
    from moefps.io import Dump
    from moefps.io.pair_tokens import PairTokens, TaskTokens

__all__ = ["Match", "match_pairs", "no_kinds"]


@dataclass(frozen=True, eq=False)
class Match:
    """Pairs of tokens of two dumps, P of them, and where they belong.

    Attributes
    ----------
    a, b : Side
        The dumps.
    rows : tuple of ndarray of int64 [P]
        Token rows of `a` and of `b`.
    task : ndarray of int64 [P]
        The task of each pair, 0..N-1.
    kind : ndarray of uint32 [P]
        The class of each pair, of `grouping`.
    distance : ndarray of int64 [P]
        Positions past the last token of the last tool response; 0 where there is none.
    kinds : tuple of ndarray of uint32 [Ta] and [Tb]
        The class of every token of each dump, K for those in no group.
    grouping : Grouping
        Groups and classes.
    tasks : tuple of str [N]
        Names of the tasks.
    about : mapping
        What was left out, in the words of the summary.
    """

    a: Side
    b: Side
    rows: tuple[IndexArray, IndexArray]
    task: IndexArray
    kind: npt.NDArray[np.uint32]
    distance: IndexArray
    kinds: tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]
    grouping: Grouping
    tasks: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_pairs(self) -> int:
        """Number of pairs, P."""
        return len(self.task)


def match_pairs(a: Dump, b: Dump, pairs: PairTokens) -> Match:
    """Join two dumps on task and position of a file of aligned tokens.

    Parameters
    ----------
    a, b : Dump
        The dumps, in any order of tasks.
    pairs : PairTokens
        The file that they were captured with.

    Returns
    -------
    Match

    Raises
    ------
    DumpError
        The dumps have not the same layers, experts and slots; a dump says nothing of tasks or positions.
    DataError
        A dump belongs to another file, its tokens are not those of the file, or no token is in both.
    """
    check_layouts(a, b)
    sides = open_side("a", a), open_side("b", b)
    tasks = {task.task_id: task for task in pairs}
    conditions = [_condition(side, pairs, tasks) for side in sides]
    sides[0].condition, sides[1].condition = conditions
    names, left_out = common_tasks(*sides, among=tasks)
    kinds = no_kinds(sides[0], PAIR_GROUPS), no_kinds(sides[1], PAIR_GROUPS)
    found: list[tuple[Any, ...]] = []
    for number, name in enumerate(names):
        task = tasks[name]
        classes, is_shared = classify(task), task.is_shared
        at = [_rows_by_position(side, name, task) for side in sides]
        for side, of, row in zip(sides, kinds, at, strict=True):
            # Words that only the assisted condition has are laid into positions of others: they are in no group.
            counted = (row >= 0) if side.condition == "agentic" else (row >= 0) & is_shared
            of[row[counted]] = classes[counted]
        both = np.flatnonzero(is_shared & (at[0] >= 0) & (at[1] >= 0))
        far = distances_to_response(task)[both]
        found.append((at[0][both], at[1][both], np.full(len(both), number), classes[both], far))
    rows_a, rows_b, number_of, kind, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if not len(number_of):
        raise DataError(f"{sides[1].name}: has no token in common with {sides[0].name} that the pairs share")
    without = [name for name in names if not any(s.kind == "tool_response" for s in tasks[name].segments)]
    about = {"left_out": left_out, "tasks_without_response": without}
    rows = rows_a, rows_b
    return Match(*sides, rows, number_of, kind, distance, kinds, PAIR_GROUPS, tuple(names), about)


def no_kinds(side: Side, grouping: Grouping) -> npt.NDArray[np.uint32]:
    """Give a class for every token of a dump, [T]: none of any group."""
    return np.full(side.dump.n_tokens, grouping.n_classes, dtype=np.uint32)


def _condition(side: Side, pairs: PairTokens, tasks: Mapping[str, TaskTokens]) -> str:
    """Say which condition a dump is of, by what it says of itself or else by its tokens; check those."""
    if side.entry is None:
        if side.tokens("token_id") is None:
            raise DataError(
                f"{side.name}: says of no pairs file, and its tokens have no token_id to check; accepted: a dump that "
                f"`moefps capture --pairs` wrote, or one with token ids"
            )
        wrong = {condition: _disagreement(side, condition, tasks) for condition in ("agentic", "assisted")}
        fits = next((condition for condition, problem in wrong.items() if problem is None), None)
        if fits is None:
            why = " nor ".join(f"{condition} ({problem})" for condition, problem in wrong.items())
            raise DataError(f"{side.name}: is neither {why}; accepted: the tokens of one condition of {pairs.source}")
        return fits
    if side.entry["sha256"] != pairs.sha256:
        raise DataError(
            f"{side.name}: was captured with another pairs file (sha256 {side.entry['sha256'][:12]}), "
            f"{pairs.source} has {pairs.sha256[:12]}; accepted: dumps of this file"
        )
    problem = _disagreement(side, side.entry["condition"], tasks)
    if problem is not None:
        raise DataError(f"{side.name}: {problem}; accepted: the tokens of {pairs.source}")
    return side.entry["condition"]


def _disagreement(side: Side, condition: str, tasks: Mapping[str, TaskTokens]) -> str | None:
    """Say where a dump's tokens are not those of a condition; None where they are."""
    ids = side.tokens("token_id")
    for name in side.tasks:
        task = tasks.get(name)
        if task is None:
            continue
        rows, position = side.rows(name), side.positions(name)
        outside = (position < 0) | (position >= task.n_positions)
        if outside.any():
            return f"task {name} has a token at position {position[outside.argmax()]} of {task.n_positions}"
        absent = ~task.mask(condition)[position]
        if absent.any():
            return f"task {name} has a token at position {position[absent.argmax()]}, where the condition has none"
        if ids is None:
            continue
        expected = task.ids(condition)[position]
        differs = ids[rows] != expected
        if differs.any():
            at = int(differs.argmax())
            return f"task {name}, position {position[at]}: token id {ids[rows][at]}, the pairs have {expected[at]}"
    return None


def _rows_by_position(side: Side, name: str, task: TaskTokens) -> IndexArray:
    """Give the token row at each position of a task, -1 where the dump has none."""
    rows, position = side.rows(name), side.positions(name)
    found = np.full(task.n_positions, -1, dtype=np.int64)
    found[position] = np.arange(rows.start, rows.stop)
    if np.count_nonzero(found >= 0) < len(position):
        at = np.sort(position)
        twice = at[1:][np.diff(at) == 0][0]
        raise DataError(f"{side.name}: task {name} has position {twice} twice; accepted: each position once")
    return found

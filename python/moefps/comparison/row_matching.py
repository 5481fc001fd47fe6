"""Two dumps of the same texts, aligned row by row, without a file that says how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.comparison.grouping import ALL, Grouping, group_values
from moefps.comparison.matching import Match, no_kinds
from moefps.comparison.sides import Side, check_layouts, common_tasks, open_side
from moefps.errors import ArgumentError, DataError
from moefps.metrics.grouping import find_groups

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray
    from moefps.io import Dump

__all__ = ["match_rows"]

_ADVICE = "for texts that are not aligned, `moefps metrics --by` and `moefps focus` are the tools"
_PAIRS_ADVICE = "tokens that a file of pairs aligns are joined with that file (--pairs)"


def match_rows(a: Dump, b: Dump, by: str | None = None) -> Match:
    """Join two dumps of the same texts: sample by sample, row by row.

    Samples are matched by a column ``task_id`` or ``id`` where both dumps have one, else by their order.

    Parameters
    ----------
    a, b : Dump
        The dumps.
    by : str, optional
        A column of the samples or tokens, of `a` or of both, whose values are groups.

    Returns
    -------
    Match

    Raises
    ------
    DumpError
        The dumps have not the same layers, experts and slots.
    DataError
        They are not of the same tokens; the message says where, and what else there is.
    ArgumentError
        `by` is no column that can be used, or the dumps are two conditions of a pairs file.
    """
    check_layouts(a, b)
    sides = open_side("a", a), open_side("b", b)
    _check_entries(*sides)
    names, samples, left_out = _match_samples(*sides)
    rows, task = _rows(*sides, names, samples)
    if not len(task):
        raise DataError(f"{sides[1].name}: has no token in common with {sides[0].name}")
    for column, noun in (("position", "position"), ("token_id", "token id")):
        _check_same(sides, rows, (names, task), column, noun)
    grouping, kind = _groups(sides, rows, by)
    kinds = no_kinds(sides[0], grouping), no_kinds(sides[1], grouping)
    for of, row in zip(kinds, rows, strict=True):
        of[row] = kind
    about: dict[str, Any] = {"left_out": left_out, "by": by, "tasks_without_response": []}
    distance = np.zeros(len(task), dtype=np.int64)
    return Match(*sides, rows, task, kind, distance, kinds, grouping, tuple(names), about)


def _check_entries(a: Side, b: Side) -> None:
    """Refuse two dumps of pairs that only the file of the pairs can join, or nothing can."""
    if a.entry is None or b.entry is None or a.entry == b.entry:
        return
    if a.entry["sha256"] != b.entry["sha256"]:
        raise DataError(
            f"{b.name}: was captured with another pairs file (sha256 {b.entry['sha256'][:12]}) than {a.name} "
            f"({a.entry['sha256'][:12]}); accepted: dumps of one file"
        )
    raise ArgumentError(
        f"pairs: not given, but the dumps are two conditions of pairs, {a.name} the {a.entry['condition']} and "
        f"{b.name} the {b.entry['condition']} one; accepted: the file of the pairs"
    )


def _advice(a: Side, b: Side) -> str:
    """Say what else there is for dumps that are not of the same tokens."""
    return _ADVICE if a.entry is None and b.entry is None else _PAIRS_ADVICE


def _match_samples(a: Side, b: Side) -> tuple[list[str], list[tuple[int, int]], dict[str, list[str]]]:
    """Give names of the tasks, the sample of each in both dumps, and what is left out."""
    if a.by_name is not None and b.by_name is not None:
        names, left_out = common_tasks(a, b)
        return names, [(a.by_name[name], b.by_name[name]) for name in names], left_out
    if a.dump.n_samples != b.dump.n_samples:
        raise DataError(
            f"{b.name}: has {b.dump.n_samples:,} samples, {a.name} has {a.dump.n_samples:,}, and no column task_id or "
            f"id tells which is which; accepted: as many samples, or such a column in both"
        )
    named = a.by_name or b.by_name
    numbers = range(a.dump.n_samples)
    names = list(named) if named is not None else [str(i) for i in numbers]
    return names, [(i, i) for i in numbers], {"a": [], "b": []}


def _rows(
    a: Side, b: Side, names: list[str], samples: list[tuple[int, int]]
) -> tuple[tuple[IndexArray, IndexArray], IndexArray]:
    """Give the token rows of each pair on both sides, and its task."""
    if not samples:
        raise DataError(f"{a.name}: has no samples; accepted: dumps with at least one")
    ours, theirs, lengths = [], [], []
    for name, (in_a, in_b) in zip(names, samples, strict=True):
        one, other = a.rows_of(in_a), b.rows_of(in_b)
        length = one.stop - one.start
        if length != other.stop - other.start:
            raise DataError(
                f"{b.name}: task {name} has {other.stop - other.start:,} tokens, {length:,} in {a.name}; accepted: "
                f"dumps of the same tokens; {_advice(a, b)}"
            )
        ours.append(np.arange(one.start, one.stop))
        theirs.append(np.arange(other.start, other.stop))
        lengths.append(length)
    return (np.concatenate(ours), np.concatenate(theirs)), np.repeat(np.arange(len(names)), lengths)


def _check_same(
    sides: tuple[Side, Side],
    rows: tuple[IndexArray, IndexArray],
    tasks: tuple[list[str], IndexArray],
    column: str,
    noun: str,
) -> None:
    """Refuse dumps whose tokens differ, where both say."""
    columns = [side.tokens(column) for side in sides]
    if columns[0] is None or columns[1] is None:
        return
    ours, theirs = columns[0][rows[0]], columns[1][rows[1]]
    differs = ours != theirs
    if differs.any():
        at = int(differs.argmax())
        names, task = tasks
        token = at - int(np.searchsorted(task, task[at]))
        raise DataError(
            f"{sides[1].name}: task {names[task[at]]}, token {token} has {noun} {theirs[at]}, {ours[at]} in "
            f"{sides[0].name}; accepted: dumps of the same tokens; {_advice(*sides)}"
        )


def _groups(
    sides: tuple[Side, Side], rows: tuple[IndexArray, IndexArray], by: str | None
) -> tuple[Grouping, npt.NDArray[np.uint32]]:
    """Give the groups, and the class of each pair."""
    if by is None:
        return Grouping((ALL,), np.ones((1, 1), dtype=np.bool_)), np.zeros(len(rows[0]), dtype=np.uint32)
    values, codes = _codes(sides[0], by, rows[0])
    other = sides[1].dump
    if by in other.samples.columns or (other.tokens is not None and by in other.tokens.columns):
        their_values, their_codes = _codes(sides[1], by, rows[1])
        # Codes of the others in our numbering; -2 for a value that we have not.
        numbering = {value: i for i, value in enumerate(values)}
        ours = np.array([*(numbering.get(value, -2) for value in their_values), -1], dtype=np.int64)[their_codes]
        differs = ours != codes
        if differs.any():
            row = int(rows[0][differs.argmax()])
            raise DataError(
                f"{sides[1].name}: column {by!r} has another value than in {sides[0].name} at token row {row:,} of it; "
                f"accepted: the same groups in both"
            )
    grouping = group_values(by, values)
    return grouping, np.where(codes < 0, len(values), codes).astype(np.uint32)


def _codes(side: Side, by: str, rows: IndexArray) -> tuple[list[Any], IndexArray]:
    groups = find_groups(side.dump, by)
    codes = groups.codes
    if not groups.of_tokens:
        codes = np.repeat(codes, np.diff(side.dump.token_starts))
    return groups.values.to_list(), codes[rows]

"""The two dumps of a comparison: their tasks by name, and the positions of their tokens."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from moefps._words import counted, listed
from moefps.errors import DataError, DumpError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from moefps._typing import IndexArray
    from moefps.io import Dump

__all__ = ["Side", "check_layouts", "common_tasks", "open_side"]

_NAMES = ("task_id", "id")
"""Columns of the samples that name a task, the first that is there."""
_MOST_NAMED = 5


class Side:
    """One of the two dumps.

    Parameters
    ----------
    label : {"a", "b"}
        Which.
    dump : Dump
        The dump.

    Attributes
    ----------
    name : str
        The dump's folder, for messages.
    entry : mapping or None
        What the dump says of the pairs file: ``sha256`` and ``condition``.
    condition : str or None
        Which condition of the pairs it holds.
    """

    def __init__(self, label: str, dump: Dump) -> None:
        self.label, self.dump, self.name = label, dump, str(dump.path)
        self.entry = _entry(dump)
        self.condition: str | None = None

    @cached_property
    def by_name(self) -> Mapping[str, int] | None:
        """The sample of each task; None where no column names them."""
        column = next((name for name in _NAMES if name in self.dump.samples.columns), None)
        if column is None:
            return None
        values = self.dump.samples[column]
        if values.null_count():
            raise DataError(f"{self.name}: sample {int(values.is_null().arg_true()[0])} has no {column}")
        found: dict[str, int] = {}
        for sample, value in enumerate(values.to_list()):
            if str(value) in found:
                raise DataError(f"{self.name}: {column} {value!r} is there twice; accepted: every task once")
            found[str(value)] = sample
        return found

    @cached_property
    def tasks(self) -> Mapping[str, int]:
        """The sample of each task.

        Raises
        ------
        DumpError
            No column names them.
        """
        if self.by_name is None:
            raise DumpError(f"{self.name}: its samples have no column {' or '.join(_NAMES)}; accepted: one of them")
        return self.by_name

    def rows(self, task: str) -> slice:
        """Give the token rows of a task."""
        return self.rows_of(self.tasks[task])

    def rows_of(self, sample: int) -> slice:
        """Give the token rows of a sample."""
        return slice(int(self.dump.token_starts[sample]), int(self.dump.token_starts[sample + 1]))

    def positions(self, task: str) -> IndexArray:
        """Give the positions of a task's tokens.

        Raises
        ------
        DumpError
            The dump does not say.
        """
        found = self.tokens("position")
        if found is None:
            raise DumpError(f"{self.name}: has no positions of tokens; accepted: a dump with such a column")
        return found[self.rows(task)]

    def tokens(self, column: str) -> IndexArray | None:
        """Give a column of integers of the tokens, [T]; None where there is none.

        Raises
        ------
        DumpError
            It holds something else.
        """
        if column not in self._columns:
            self._columns[column] = self._read(column)
        return self._columns[column]

    @cached_property
    def _columns(self) -> dict[str, IndexArray | None]:
        return {}

    def _read(self, column: str) -> IndexArray | None:
        tokens = self.dump.tokens
        if tokens is None or column not in tokens.columns:
            return None
        values = tokens[column]
        if not values.dtype.is_integer() or values.null_count():
            found = f"is {values.dtype}" if not values.dtype.is_integer() else "has no value at some tokens"
            raise DumpError(f"{self.name}: the column {column} of tokens.parquet {found}; accepted: integers")
        return values.to_numpy().astype(np.int64, copy=False)


def open_side(label: str, dump: Dump) -> Side:
    """Take a dump as one of the sides.

    Raises
    ------
    DumpError
        The dump holds no layers, or negative weights are possible: ŵ is not defined then.
    """
    if not dump.n_layers:
        raise DumpError(f"{dump.path}: has no layers; accepted: a dump of a model with routers")
    signed = next((info for info in dump.layers if info.signed_weights), None)
    if signed is not None and dump.expert_weights is not None:
        raise DumpError(
            f"{dump.path}: layer {signed.index} ({signed.path}) has signed weights, whose shares are not defined; "
            f"accepted: weights of at least 0, or a dump without weights, whose experts are compared"
        )
    return Side(label, dump)


def check_layouts(a: Dump, b: Dump) -> None:
    """Refuse dumps that do not have the same layers, experts and slots.

    Raises
    ------
    DumpError
        Says what differs.
    """
    sizes = (("layer", "", a.n_layers, b.n_layers), ("slot", " of a token", a.top_k, b.top_k))
    for what, more, ours, theirs in sizes:
        if ours != theirs:
            found = f"{b.path}: has {counted(theirs, what)}{more}, {a.path} has {ours}"
            raise DumpError(f"{found}; accepted: dumps of one layout")
    for one, other in zip(a.layers, b.layers, strict=True):
        for name in ("n_experts", "passive_experts", "top_k"):
            ours, theirs = getattr(one, name), getattr(other, name)
            if ours != theirs:
                raise DumpError(
                    f"{b.path}: layer {one.index} has {name} {theirs}, {a.path} has {ours}; "
                    f"accepted: dumps of one layout"
                )


def common_tasks(a: Side, b: Side, *, among: Collection[str] | None = None) -> tuple[list[str], dict[str, list[str]]]:
    """Give the tasks that both dumps have, and by file those that are left out.

    The order is that of `among`, or where that is None of the names: the same whichever dump is the first, so that
    exchanging them draws the same resamples.

    Raises
    ------
    DataError
        There is none.
    """
    order = sorted(a.tasks) if among is None else among
    names = [name for name in order if name in a.tasks and name in b.tasks]
    if not names:
        where = "" if among is None else " of the pairs"
        # Two conditions of another file have the same tasks, which are named once.
        found = " and ".join(dict.fromkeys(listed(side.tasks, _MOST_NAMED) for side in (b, a)))
        accepted = "the same tasks in both" if among is None else f"those of the pairs, {listed(among, _MOST_NAMED)}"
        raise DataError(f"{b.name}: has no task{where} in common with {a.name}; found {found}; accepted: {accepted}")
    chosen = set(names)
    left_out = {side.label: [name for name in side.tasks if name not in chosen] for side in (a, b)}
    return names, left_out


def _entry(dump: Dump) -> Mapping[str, str] | None:
    """Read what the manifest says of a pairs file."""
    found = dump.manifest.extra.get("pairs")
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("sha256", "condition")):
        raise DumpError(f"{dump.path}: the manifest's pairs is not an object of sha256 and condition")
    if found["condition"] not in {"agentic", "assisted"}:
        raise DumpError(f"{dump.path}: the condition is {found['condition']!r}; accepted: agentic, assisted")
    return found

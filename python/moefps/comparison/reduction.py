"""From two dumps to sums by task and class, in passes over both memory-mapped traces: one, where the sums fit."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.kernels import compare_choices
from moefps.metrics.dump_rows import layer_sizes, said_of_the_dump
from moefps.metrics.grouping import Cells
from moefps.metrics.reduction import reduce_dump

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray, Progress
    from moefps.comparison.matching import Match
    from moefps.io import Dump
    from moefps.kernels import ChoiceSums, RoutingCounts

__all__ = [
    "Units",
    "compare_cells",
    "find_compared",
    "has_shares",
    "layer_chunks",
    "make_units",
    "present_classes",
    "reduce_pairs",
    "reduce_sides",
]

MOST_UNITS = 1 << 12
"""Units that a bootstrap draws, at most."""
MOST_BYTES = 1 << 28
"""Of the sums that one pass makes, about."""
_BYTES_OF_EXPERT = 32
BYTES_OF_LAYER = 200
_ROWS = 1 << 12
"""Tokens looked at at a time."""


@dataclasses.dataclass(frozen=True)
class Units:
    """What the bootstrap draws: tasks, or blocks of them where there are very many.

    Neighbours are in different blocks, so that groups of few tasks, which often are neighbours, are in several.

    Attributes
    ----------
    n_tasks : int
        How many tasks there are.
    n_units : int
        How many units, N.
    """

    n_tasks: int
    n_units: int

    @property
    def tasks_per_unit(self) -> int:
        """Tasks of the largest unit; the others have as many, or one less."""
        return -(-self.n_tasks // self.n_units)

    def of(self, task: IndexArray) -> IndexArray:
        """Give the unit of tasks."""
        return task % self.n_units

    def add_up(self, by_task: Float64Array) -> Float64Array:
        """Add up the tasks of each unit: [T, ...] to [N, ...]."""
        if self.n_units == self.n_tasks:
            return by_task
        found = np.zeros((self.n_units, *by_task.shape[1:]))
        np.add.at(found, self.of(np.arange(self.n_tasks)), by_task)
        return found


def make_units(match: Match, n_resamples: int = 0) -> Units:
    """Choose units of as few tasks as the memory for a layer, and for the draws of all resamples, allows."""
    n_tasks = len(match.tasks)
    per_unit = len(present_classes(match)) * (match.a.dump.n_experts * _BYTES_OF_EXPERT + BYTES_OF_LAYER)
    most = max(2, min(MOST_UNITS, MOST_BYTES // per_unit, MOST_BYTES // (8 * max(1, n_resamples))))
    n_blocks = -(-n_tasks // most)
    return Units(n_tasks, -(-n_tasks // n_blocks))


def layer_chunks(match: Match, units: Units) -> Iterator[list[int]]:
    """Cut the layers into stretches whose sums fit into memory: each takes a pass."""
    n_cells = units.n_units * len(present_classes(match))
    of_layer = n_cells * (match.a.dump.n_experts * _BYTES_OF_EXPERT + BYTES_OF_LAYER)
    size = max(1, MOST_BYTES // of_layer)
    n_layers = match.a.dump.n_layers
    for first in range(0, n_layers, size):
        yield list(range(first, min(n_layers, first + size)))


def reduce_pairs(
    match: Match,
    units: Units,
    layers: list[int],
    *,
    n_threads: int | None = None,
    progress: Progress = False,
) -> dict[str, Any]:
    """Sum what pairs of tokens say, by unit, class and layer.

    Parameters
    ----------
    match : Match
        The pairs.
    units : Units
        What is resampled.
    layers : list of int [L]
        Which layers.
    n_threads, progress
        As `moefps.kernels.compare_choices` takes them.

    Returns
    -------
    dict of str to ndarray [N, K, L, ...] or None
        The sums of `moefps.kernels.ChoiceSums` by name, and ``count``: the pairs that are compared. K are the classes
        that any pair is of, as `present_classes` gives them.

    Raises
    ------
    DataError
        A value of a dump is not accepted; the message names the file and the row.
    """
    present = present_classes(match)
    place = np.zeros(match.grouping.n_classes, dtype=np.int64)
    place[present] = np.arange(len(present))
    cells = units.of(match.task) * len(present) + place[match.kind]
    n_cells = units.n_units * len(present)
    sums = compare_cells(match, slice(None), cells, n_cells, layers=layers, n_threads=n_threads, progress=progress)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(sums):
        array = getattr(sums, field.name)
        if field.name in {"n_experts", "top_k"} or array is None:
            found[field.name] = array
            continue
        found[field.name] = array.reshape(units.n_units, len(present), *array.shape[1:])
    found["count"] = found["pairs"] - found["pairs_without_shares"] if has_shares(match) else found["pairs"]
    return found


def compare_cells(
    match: Match, chosen: Any, cells: IndexArray, n_cells: int, *, usage: bool = True, **options: Any
) -> ChoiceSums:
    """Compare pairs that are chosen, summed by cell; errors say which file and row."""
    a, b = match.a.dump, match.b.dump
    weights = (a.expert_weights, b.expert_weights) if has_shares(match) else (None, None)
    with said_of_the_dump(a, b, arrays=("expert_ids", "expert_weights") if has_shares(match) else ("expert_ids",)):
        return compare_choices(
            a.expert_ids,
            weights[0],
            b.expert_ids,
            weights[1],
            **layer_sizes(a.layers),
            rows_a=match.rows[0][chosen],
            rows_b=match.rows[1][chosen],
            groups=cells,
            n_groups=n_cells,
            require_shares=has_shares(match),
            usage=usage,
            **options,
        )


def has_shares(match: Match) -> bool:
    """Whether both dumps hold weights."""
    return match.a.dump.expert_weights is not None and match.b.dump.expert_weights is not None


def reduce_sides(match: Match, compared: Mapping[str, Any], **options: Any) -> list[RoutingCounts | None]:
    """Count what each dump has in every class, whether the other has it or not.

    Parameters
    ----------
    match : Match
        The pairs.
    compared : mapping
        ``count`` [N, K, L] of all layers.
    **options
        Threads and progress.

    Returns
    -------
    list of RoutingCounts or None
        For `a` and `b`, with a first axis of classes; None where the dump has nothing but what is compared, so that
        no pass is needed.
    """
    n_classes = match.grouping.n_classes
    is_whole = bool((compared["count"].sum(axis=(0, 1)) == match.n_pairs).all())
    found: list[RoutingCounts | None] = []
    for side, kinds in zip((match.a, match.b), match.kinds, strict=True):
        counted = int(np.count_nonzero(kinds < n_classes))
        if is_whole and counted == match.n_pairs:
            found.append(None)
            continue
        has_outside = counted < len(kinds)
        cells = Cells(kinds, n_classes, np.arange(n_classes), has_outside)
        found.append(reduce_dump(side.dump, np.arange(side.dump.n_layers), cells, coactivation="none", **options))
    return found


def find_compared(match: Match, counts: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Say which pairs are compared in at least one layer.

    Parameters
    ----------
    match : Match
        The pairs.
    counts : ndarray [N, K, L]
        How many are compared, by unit, class and layer.

    Returns
    -------
    ndarray of bool [P]
    """
    if int(counts.sum(axis=(0, 1)).max(initial=0)) == match.n_pairs:
        # In some layer they all are.
        return np.ones(match.n_pairs, dtype=np.bool_)
    found = np.zeros(match.n_pairs, dtype=np.bool_)
    for first in range(0, match.n_pairs, _ROWS):
        rows = slice(first, first + _ROWS)
        routed = [
            _is_routed(side.dump, of[rows], has_shares(match))
            for side, of in zip((match.a, match.b), match.rows, strict=True)
        ]
        found[rows] = (routed[0] & routed[1]).any(axis=1)
    return found


def _is_routed(dump: Dump, rows: IndexArray, needs_weights: bool) -> npt.NDArray[np.bool_]:
    """Say of tokens and layers whether there is a filled slot, and a weight over 0, [n, L]."""
    ids = dump.expert_ids[rows]
    real = np.array([info.n_experts - info.passive_experts for info in dump.layers])
    filled: Any = (ids >= 0) & (ids < real[:, np.newaxis])
    if needs_weights and dump.expert_weights is not None:
        filled = np.logical_and(filled, dump.expert_weights[rows] > 0)
    found: npt.NDArray[np.bool_] = filled.any(axis=2)
    return found


def present_classes(match: Match) -> npt.NDArray[np.int64]:
    """Give the classes that any pair is of, ascending."""
    return np.flatnonzero(np.bincount(match.kind, minlength=match.grouping.n_classes))

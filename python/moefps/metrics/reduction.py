"""From a dump to counts and sums, in one pass over its memory-mapped arrays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from moefps.errors import DumpError
from moefps.kernels import count_routing, find_neighbours, sum_logits
from moefps.metrics.dump_rows import layer_sizes, said_of_the_dump

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from moefps._typing import IndexArray, Progress
    from moefps.io import Dump
    from moefps.kernels import LogitSums, RoutingCounts
    from moefps.kernels.counting import Coactivation
    from moefps.metrics.grouping import Cells

__all__ = ["MOST_SLOTS", "find_follows", "layer_view", "reduce_dump", "reduce_logits", "token_pieces"]

MOST_SLOTS = 1 << 31
"""Slots of a layer that are counted in one call, at most: the counters of a call have 32 bits."""
_POSITIONS = 1 << 22
"""Positions compared at a time."""


def reduce_dump(
    dump: Dump,
    layers: IndexArray,
    cells: Cells | None = None,
    *,
    coactivation: Coactivation = "whole",
    n_threads: int | None = None,
    progress: Progress = False,
) -> RoutingCounts:
    """Count a dump's trace.

    Parameters
    ----------
    dump : Dump
        The dump; its arrays are read once, in order, and nothing is loaded whole.
    layers : ndarray of int64 [L]
        Which layers.
    cells : Cells, optional
        Sets of tokens to count apart.
    coactivation : {"whole", "groups", "none"}
        Whether to count pairs of experts: over all tokens, for each cell, or not.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable
        True shows a bar; a callable gets ``(done, total)``.

    Returns
    -------
    RoutingCounts
        With a first axis of cells where `cells` has codes; tokens in no cell are in none of them.

    Raises
    ------
    DataError
        An id is no expert's, or a weight is NaN, infinite, or negative where none may be; the message names the file
        and the row.
    DumpError
        The tokens' positions or stacks are not what they must be.
    """
    follows = find_follows(dump)
    groups = None if cells is None else cells.codes
    n_groups = None if cells is None or groups is None else cells.n_cells + cells.has_outside
    view, back = layer_view(layers)
    infos = [dump.layers[i] for i in range(dump.n_layers)[view]]
    ids, weights = dump.expert_ids[:, view], dump.expert_weights
    total: RoutingCounts | None = None
    for rows in token_pieces(follows, MOST_SLOTS // max(1, dump.top_k)):
        with said_of_the_dump(dump, arrays=("expert_ids", "expert_weights")):
            counts = count_routing(
                ids[rows],
                None if weights is None else weights[rows, view],
                **layer_sizes(infos),
                signed_weights=[info.signed_weights for info in infos],
                follows=follows[rows],
                groups=None if groups is None else groups[rows],
                n_groups=n_groups,
                coactivation=coactivation,
                n_threads=n_threads,
                progress=progress,
            )
        total = counts if total is None else total + counts
    if total is None:
        raise DumpError(f"{dump.path}: holds nothing to count")
    return _take(total, back, None if cells is None or groups is None else cells)


def reduce_logits(
    dump: Dump,
    layers: IndexArray,
    cells: Cells | None = None,
    *,
    n_threads: int | None = None,
    progress: Progress = False,
) -> LogitSums | None:
    """Add up what the full distributions of a dump's routers say.

    Parameters
    ----------
    dump, layers, cells, n_threads, progress
        As `reduce_dump` takes them.

    Returns
    -------
    LogitSums or None
        For the same cells and layers as `reduce_dump` gives; None where the dump holds no logits.

    Raises
    ------
    DataError
        A logit is not accepted; the message names the file and the row.
    """
    if "router_logits" not in dump.arrays:
        return None
    groups = None if cells is None else cells.codes
    n_groups = None if cells is None or groups is None else cells.n_cells + cells.has_outside
    view, back = layer_view(layers)
    infos = [dump.layers[i] for i in range(dump.n_layers)[view]]
    with said_of_the_dump(dump, arrays=("expert_ids", "router_logits")):
        sums = sum_logits(
            dump.expert_ids[:, view],
            dump.stored("router_logits")[:, view],
            **layer_sizes(infos),
            scoring=[info.scoring for info in infos],
            groups=groups,
            n_groups=n_groups,
            n_threads=n_threads,
            progress=progress,
        )
    return _take(sums, back, None if groups is None else cells)


def find_follows(dump: Dump) -> npt.NDArray[np.bool_]:
    """Say of each row whether the row before it is its neighbour: of one sample and stack, one position earlier.

    Rows are compared with the row right before them. Dumps have the rows of a sample's stacks one stack after another,
    as captures write them, so that no neighbours stand further apart; where a dump of another's making has stacks in
    turn, row by row, its tokens have no neighbours.

    Returns
    -------
    ndarray of bool [T]

    Raises
    ------
    DumpError
        The positions are not integers, or some are missing.
    """
    follows = find_neighbours(dump.token_starts)
    tokens = dump.tokens
    if tokens is None:
        return follows
    if "position" in tokens.columns:
        column = tokens["position"]
        if not column.dtype.is_integer() or column.null_count():
            found = f"is {column.dtype}" if not column.dtype.is_integer() else "has no value at some tokens"
            raise DumpError(f"{dump.path}: the column position of tokens.parquet {found}; accepted: integers")
        position = column.to_numpy()
        for first in range(1, len(follows), _POSITIONS):
            stop = min(len(follows), first + _POSITIONS)
            step = position[first - 1 : stop].astype(np.int64)
            follows[first:stop] &= np.diff(step) == 1
    if "stack" in tokens.columns:
        stack = tokens["stack"]
        follows &= stack.eq_missing(stack.shift(1)).to_numpy()
    return follows


def layer_view(layers: IndexArray) -> tuple[slice, IndexArray]:
    """Give a slice that has all the layers, so that no array is copied, and their places in it.

    Examples
    --------
    >>> import numpy as np
    >>> view, back = layer_view(np.array([7, 1, 4]))
    >>> view, back.tolist()
    (slice(1, 8, 3), [2, 0, 1])
    """
    first = int(layers.min())
    step = int(np.gcd.reduce(layers - first)) or 1
    return slice(first, int(layers.max()) + 1, step), (layers - first) // step


def token_pieces(follows: npt.NDArray[np.bool_], most: int) -> Iterator[slice]:
    """Cut a trace where no two neighbours are parted, into pieces of at most so many rows."""
    n_tokens, first = len(follows), 0
    while n_tokens - first > most:
        # A sequence longer than that is left to the kernel, which says that it is too long.
        starts = np.flatnonzero(~follows[first + 1 : first + most + 1])
        stop = first + 1 + int(starts[-1]) if len(starts) else n_tokens
        yield slice(first, stop)
        first = stop
    yield slice(first, n_tokens)


_BY_LAYER = ("n_experts", "top_k")
_Sums = TypeVar("_Sums", "RoutingCounts", "LogitSums")


def _take(counts: _Sums, layers: IndexArray, cells: Cells | None) -> _Sums:
    """Take layers of counts or sums, and leave out what tokens in no cell have."""
    if np.array_equal(layers, np.arange(len(counts.n_experts))) and not (cells is not None and cells.has_outside):
        return counts
    picked: dict[str, Any] = {}
    for field in dataclasses.fields(counts):
        array = getattr(counts, field.name)
        if array is None:
            picked[field.name] = None
        elif isinstance(array, tuple):
            picked[field.name] = tuple(array[i] for i in layers.tolist())
        elif cells is None or field.name in _BY_LAYER or (field.name == "coactivation" and array.ndim == 3):
            picked[field.name] = array[layers]
        else:
            picked[field.name] = array[: cells.n_cells, layers]
    return dataclasses.replace(counts, **picked)

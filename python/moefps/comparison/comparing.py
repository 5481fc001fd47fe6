"""Two dumps of the same tokens, compared: token by token, expert by expert, with intervals over tasks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps._progress import progress_callback
from moefps.comparison.assembly import assemble
from moefps.comparison.distances import distance_sums
from moefps.comparison.grouping import ALL, CANONICAL, TOOL
from moefps.comparison.joint import GroupUsage, LayerUsage, Resamples, measure_layer
from moefps.comparison.matching import match_pairs
from moefps.comparison.measured import Measured
from moefps.comparison.measures import token_sums
from moefps.comparison.reduction import (
    find_compared,
    layer_chunks,
    make_units,
    present_classes,
    reduce_pairs,
    reduce_sides,
)
from moefps.comparison.resampling import resample_tasks
from moefps.comparison.row_matching import match_rows
from moefps.comparison.usage import exchanged_halves
from moefps.comparison.writing import check_comparison_folder
from moefps.errors import ArgumentError, DataError
from moefps.io import take_dump
from moefps.io.pair_tokens import PairTokens, read_pair_tokens
from moefps.kernels import check_count, check_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moefps._typing import PathLike, Progress
    from moefps.comparison.grouping import Grouping
    from moefps.comparison.matching import Match
    from moefps.comparison.result import Comparison
    from moefps.io import Dump
    from moefps.io.tables import TableFormat

__all__ = ["compare"]

MOST_RESAMPLES = 100_000
HALVES = 200
"""Random halves of the tasks that the mean TV of usage by chance is taken over, at most."""


def compare(
    a: Dump | PathLike,
    b: Dump | PathLike,
    pairs: PairTokens | PathLike | None = None,
    *,
    by: str | None = None,
    groups: Sequence[str] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    output: PathLike | None = None,
    file_format: TableFormat = "csv",
    overwrite: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> Comparison:
    """Compare how two dumps route the same tokens.

    Both traces are read in order from memory-mapped files, and may be larger than memory. The result does not depend on
    the number of threads; exchanging `a` and `b` turns every signed difference round, and changes nothing else.

    Parameters
    ----------
    a, b : Dump or path of a dump
        The dumps: as many layers, experts and slots in both.
    pairs : path or PairTokens, optional
        The file of aligned tokens that both were captured with: tokens are joined on task and position, and those in
        segments that both conditions have are compared, in groups by what they are. Without it, the dumps are of the
        same texts, and joined row by row.
    by : str, optional
        Without `pairs`: a column of the samples or tokens whose values are groups.
    groups : sequence of str, optional
        The groups that the tables of layers have; all when not given.
    n_resamples : int
        Resamples of tasks for the intervals, and random signs for p; 0 for none of either.
    seed : int
        Of the random numbers.
    output : path, optional
        A folder to write everything to.
    file_format : {"csv", "parquet"}
        Of the tables in it.
    overwrite : bool
        True replaces such a folder where it exists.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable
        True shows a bar on stderr; a callable gets ``(done, total)``.

    Returns
    -------
    Comparison

    Raises
    ------
    DumpError
        The dumps have not the same layers, experts and slots, or weights that may be negative.
    DataError
        They are not of the same tokens, or not of the file of pairs; or a value of one of them is not accepted.
    ArgumentError
        An argument is not accepted: among them a group that there is not.
    FileError
        A file is missing, or `output` cannot be written.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> import moefps
    >>> from moefps.comparison import compare
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> weights = np.full((2, 1, 2), 0.5, dtype=np.float32)
    >>> base, tuned = (
    ...     moefps.write_dump(folder / name, expert_ids=ids, expert_weights=weights, offsets=[0, 1, 2], n_experts=4)
    ...     for name, ids in {"base": [[[0, 1]], [[2, 3]]], "tuned": [[[0, 1]], [[2, 0]]]}.items()
    ... )
    >>> found = compare(base, tuned)
    >>> found.layer_metrics.select("layer", "group", "count", "tv", "intersection").rows()
    [(0, 'all', 2, 0.25, 1.5)]
    """
    number = check_count("n_resamples", n_resamples, f"an integer of 0 to {MOST_RESAMPLES:,}")
    if not 0 <= number <= MOST_RESAMPLES:
        raise ArgumentError(f"n_resamples: {number}; accepted: 0 to {MOST_RESAMPLES:,}")
    seed = check_seed("seed", seed) or 0
    if file_format not in {"csv", "parquet"}:
        raise ArgumentError(f"file_format: {file_format!r}; accepted: 'csv', 'parquet'")
    if output is not None:
        check_comparison_folder(output, overwrite=overwrite)
    match = _match(a, b, pairs, by)
    wanted = match.grouping.check_wanted(groups)
    measured = _measure(match, wanted, number, seed, n_threads=n_threads, progress=progress)
    found = assemble(measured, progress)
    if output is not None:
        found.write(output, file_format=file_format, overwrite=overwrite)
    return found


def _match(a: Any, b: Any, pairs: Any, by: str | None) -> Match:
    a, b = take_dump(a, "a"), take_dump(b, "b")
    if pairs is None:
        return match_rows(a, b, by)
    if by is not None:
        raise ArgumentError(f"by: {by!r} with pairs; accepted: None, as pairs have groups of their own")
    if not isinstance(pairs, PairTokens | str | os.PathLike):
        raise ArgumentError(f"pairs: got a {type(pairs).__name__}; accepted: a file of aligned tokens")
    return match_pairs(a, b, pairs if isinstance(pairs, PairTokens) else read_pair_tokens(pairs))


def _measure(match: Match, wanted: tuple[str, ...], n_resamples: int, seed: int, **options: Any) -> Measured:
    """Read both traces and reduce them to what the tables are made of."""
    units = make_units(match, n_resamples)
    draws = None
    if n_resamples and units.n_units > 1:
        halves = exchanged_halves(units.n_units, min(n_resamples, HALVES), seed=seed)
        draws = Resamples(resample_tasks(units.n_units, n_resamples, seed=seed), halves)
    grouping = match.grouping.only(present_classes(match))
    usage: list[LayerUsage] = []
    parts = []
    for layers in layer_chunks(match, units):
        sums = reduce_pairs(match, units, layers, **options)
        usage += _measure_layers(sums, grouping, wanted, draws, **options)
        # What is left is small: the usage of experts is not.
        parts.append({name: of for name, of in sums.items() if of is not None and of.ndim < 4} | _missing(sums))
    top_k = np.array([info.top_k for info in match.a.dump.layers])
    found = token_sums(parts, grouping, top_k)
    counts = np.concatenate([part["count"] for part in parts], axis=2)
    compared = find_compared(match, counts)
    if not compared.any():
        raise DataError(
            f"{match.b.name}: no token that it has in common with {match.a.name} is routed in both; "
            "accepted: dumps with filled slots and weights above 0"
        )
    return Measured(
        match=match,
        units=units,
        wanted=wanted,
        n_resamples=n_resamples,
        seed=seed,
        draws=draws,
        tokens=found,
        usage=usage,
        sides=reduce_sides(match, {"count": counts}, **options),
        compared=compared,
        distances=distance_sums(match, units, compared, **options),
    )


def _missing(sums: Mapping[str, Any]) -> dict[str, None]:
    return dict.fromkeys(name for name, of in sums.items() if of is None)


def _measure_layers(
    sums: Mapping[str, Any],
    grouping: Grouping,
    wanted: Sequence[str],
    draws: Resamples | None,
    *,
    n_threads: int | None,
    progress: Progress,
) -> list[LayerUsage]:
    """Measure the usage in each layer of a pass, some layers beside each other."""

    def measure(place: int) -> LayerUsage:
        groups = {}
        width = int(sums["n_experts"][place])
        by_class = {
            name: None if sums[name] is None else sums[name][:, :, place, :width].astype(np.float64)
            for name in ("activations_a", "activations_b", "share_sums_a", "share_sums_b")
        }
        for name, members in zip(grouping.names, grouping.members, strict=True):
            tokens = sums["count"][:, members, place].sum(axis=1)
            if not tokens.any() or not (name in wanted or name in {ALL, TOOL, CANONICAL}):
                continue
            of: dict[str, Any] = {
                key: None if array is None else array[:, members].sum(axis=1) for key, array in by_class.items()
            }
            weights = None if of["share_sums_a"] is None else (of["share_sums_a"], of["share_sums_b"])
            counts = of["activations_a"], of["activations_b"]
            groups[name] = GroupUsage(counts, weights, int((tokens > 0).sum()))
        return measure_layer(groups, wanted, whole=ALL, leakage=(TOOL, CANONICAL), draws=draws)

    found: list[LayerUsage] = []
    n_layers = len(sums["n_experts"])
    pool = ThreadPoolExecutor(max(1, min(n_threads or os.cpu_count() or 1, 8)))
    try:
        with progress_callback(progress, "usage of experts") as advance:
            for done, layer in enumerate(pool.map(measure, range(n_layers)), start=1):
                found.append(layer)
                if advance is not None:
                    advance(done, n_layers)
    finally:
        # After Ctrl-C, layers that have not begun are not waited for, and those that have stop where they are.
        if draws is not None:
            draws.stop.set()
        pool.shutdown(cancel_futures=True)
        if draws is not None:
            draws.stop.clear()
    return found

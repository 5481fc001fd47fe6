"""Two dumps of the same tokens, compared: token by token, expert by expert, with intervals over tasks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from moefps.comparison.assembly import assemble
from moefps.comparison.matching import match_pairs
from moefps.comparison.measuring import measure
from moefps.comparison.row_matching import match_rows
from moefps.comparison.writing import check_comparison_folder
from moefps.errors import ArgumentError
from moefps.io import take_dump
from moefps.io.pair_tokens import PairTokens, read_pair_tokens
from moefps.kernels import check_count, check_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps._typing import PathLike, Progress
    from moefps.comparison.matching import Match
    from moefps.comparison.result import Comparison
    from moefps.io import Dump
    from moefps.io.tables import TableFormat

__all__ = ["compare"]

MOST_RESAMPLES = 100_000


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
    measured = measure(match, wanted, number, seed, n_threads=n_threads, progress=progress)
    found = assemble(measured, progress)
    if output is not None:
        found.write(output, file_format=file_format, overwrite=overwrite)
    return found


def _match(a: Any, b: Any, pairs: Any, by: str | None) -> Match:
    a, b = take_dump(a, "a"), take_dump(b, "b")
    if pairs is None:
        return match_rows(a, b, by)
    if by is not None:
        raise ArgumentError(f"by: {by!r} with pairs; accepted: one of the two, as pairs have groups of their own")
    if not isinstance(pairs, PairTokens | str | os.PathLike):
        raise ArgumentError(f"pairs: got a {type(pairs).__name__}; accepted: a file of aligned tokens")
    return match_pairs(a, b, pairs if isinstance(pairs, PairTokens) else read_pair_tokens(pairs))

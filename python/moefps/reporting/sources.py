"""From whatever a report is asked of to what its page says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moefps.comparison.reading import is_comparison, open_comparison
from moefps.comparison.result import Comparison
from moefps.errors import ArgumentError, DataError, DumpError, FileError
from moefps.io import Dump, is_dump, open_dump
from moefps.io.picks import pick_table, read_picks
from moefps.io.table_reading import FORMATS
from moefps.kernels import check_count
from moefps.metrics import RoutingMetrics, open_metrics, routing_metrics
from moefps.metrics.reading import is_metrics
from moefps.reporting.of_comparison import comparison_content
from moefps.reporting.of_metrics import metric_content
from moefps.reporting.of_selection import selection_content
from moefps.selection import Selection, select, typicality

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from moefps._typing import PathLike, Progress
    from moefps.reporting.content import Content

__all__ = ["check_source", "read_content"]

_LEVEL = 0.95
_ACCEPTED = (
    "a folder that `moefps compare` or `moefps metrics -o` wrote, a dump, or the picks that `moefps select -o` wrote "
    "as .csv, .json or .parquet"
)


class Picks(NamedTuple):
    """Picks that were read from a file.

    Attributes
    ----------
    table : polars.DataFrame
        A row a pick.
    name : str
        The file.
    """

    table: pl.DataFrame
    name: str


def check_source(source: Any, n_select: int | None) -> Any:
    """Open what a report is of, before any work is done; paths are told apart by what they hold.

    Returns
    -------
    Comparison, RoutingMetrics, Selection, Dump or Picks

    Raises
    ------
    ArgumentError
        `source` is nothing of these, or there is `n_select` and it is no dump.
    FileError, DumpError
        A path is nothing of ours, or damaged.
    """
    found = _open(source) if isinstance(source, str | os.PathLike) else source
    if not isinstance(found, Comparison | RoutingMetrics | Selection | Dump | Picks):
        raise ArgumentError(
            f"source: got a {type(source).__name__}; accepted: a Comparison, RoutingMetrics, Selection, Dump, or a path"
        )
    if n_select is not None:
        if not isinstance(found, Dump):
            raise ArgumentError(
                f"n_select: {n_select!r}, but the source is no dump, and only from one samples are picked"
            )
        number = check_count("n_select", n_select, f"1 to {found.n_samples:,}, the number of samples")
        if not 1 <= number <= found.n_samples:
            raise ArgumentError(f"n_select: {number}; accepted: 1 to {found.n_samples:,}, the number of samples")
    return found


def read_content(found: Any, n_select: int | None, progress: Progress) -> Content:
    """Say what the page of a source says.

    Parameters
    ----------
    found : object
        As `check_source` gives it.
    n_select : int or None
        Of a dump, how many samples to pick.
    progress : bool or callable
        For what is computed of a dump.
    """
    if isinstance(found, Comparison):
        return comparison_content(found)
    if isinstance(found, RoutingMetrics):
        return metric_content(found)
    if isinstance(found, Selection):
        return selection_content(pick_table(found), source=f"{len(found.assignment):,}")
    if isinstance(found, Dump):
        return _dump_content(found, n_select, progress)
    n_samples = int(found.table["cluster_size"].sum())
    return selection_content(found.table, source=f"{n_samples:,}", facts=[("source", found.name)])


def _open(path: PathLike) -> Any:
    name, given = os.fspath(path), Path(path)
    if is_comparison(given):
        return open_comparison(path)
    if is_metrics(given):
        return open_metrics(path)
    if is_dump(given):
        return open_dump(path)
    if given.is_file() and given.suffix.lower()[1:] in FORMATS:
        return Picks(read_picks(path), name)
    what = (
        "does not exist" if not given.exists() else f"is a {'folder' if given.is_dir() else 'file'} of something else"
    )
    raise FileError(f"{name}: {what}; accepted: {_ACCEPTED}")


def _dump_content(dump: Dump, n_select: int | None, progress: Progress) -> Content:
    """Compute the metrics of a dump, and the picks where there are to be some."""
    picked = None if n_select is None else _picked(dump, n_select, progress)
    level = _LEVEL if dump.n_samples > 1 else None
    metrics = routing_metrics(dump, targets="spectra", ci=level, progress=progress)
    content = metric_content(metrics).with_facts(_dump_facts(dump))
    return content if picked is None else content.joined_with(picked)


def _picked(dump: Dump, n_select: int, progress: Progress) -> Content:
    """Pick samples of a dump."""
    try:
        fingerprints = dump.fingerprint_set(progress=progress)
    except (DataError, DumpError) as error:
        # There is a choice to be made, which is for the command that picks.
        raise type(error)(f"{error}; pick with `moefps select`, and report the picks that it writes") from error
    selection = select(fingerprints.array, n_select, progress=progress)
    commonness = typicality(fingerprints.array, progress=progress)
    how = "farthest point sampling from the medoid; sum over layers of the Wasserstein distance, ground index"
    return selection_content(
        pick_table(selection, commonness, rows=fingerprints.rows),
        source=f"{dump.n_samples:,}",
        facts=[("fingerprints", f"of kind {fingerprints.kind}"), ("picked by", how)],
    )


def _dump_facts(dump: Dump) -> Iterator[tuple[str, str]]:
    """Say what the manifest knows."""
    manifest = dump.manifest
    model = [str(manifest.model[key]) for key in ("id", "type", "dtype", "revision") if manifest.model.get(key)]
    if model:
        yield "model", ", ".join(model)
    scoring = sorted({layer.scoring for layer in dump.layers})
    yield "scoring", ", ".join(scoring)
    pairs = manifest.extra.get("pairs")
    if isinstance(pairs, dict) and pairs.get("condition"):
        yield "condition", str(pairs["condition"])
    if manifest.created:
        yield "captured", manifest.created
    if manifest.tool_versions:
        yield "captured by", ", ".join(f"{name} {version}" for name, version in manifest.tool_versions.items())

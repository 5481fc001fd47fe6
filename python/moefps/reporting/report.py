"""Write a report: one HTML page about a comparison, routing metrics, a selection or a dump."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError, FileError, MissingExtraError
from moefps.io.atomic import atomic_file, check_destination

if TYPE_CHECKING:
    from moefps._typing import PathLike, Progress
    from moefps.comparison import Comparison
    from moefps.io import Dump
    from moefps.metrics import RoutingMetrics
    from moefps.selection import Selection

__all__ = ["write_report"]

_NEEDED = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2", "markdown_it": "markdown-it-py"}
_SUFFIXES = (".html", ".htm")


def write_report(
    source: Comparison | RoutingMetrics | Selection | Dump | PathLike,
    output: PathLike,
    *,
    title: str | None = None,
    n_select: int | None = None,
    overwrite: bool = False,
    progress: Progress = False,
) -> Path:
    """Write one self-contained HTML page: what was run, what it says in words, charts and tables.

    The page holds all that it shows, scripts included, and forbids itself to ask any network for anything.

    Parameters
    ----------
    source : Comparison, RoutingMetrics, Selection, Dump or path
        What it is about. A path is a folder that `moefps compare` or `moefps metrics -o` wrote, a dump (its metrics are
        computed, with the targets of the checklist and intervals of 95 %), or the picks that `moefps select -o` wrote
        as .csv, .json or .parquet.
    output : path
        The .html to write.
    title : str, optional
        Its title; one that says what it is about when not given.
    n_select : int, optional
        Of a dump: also pick so many samples, and show them.
    overwrite : bool
        True replaces a file that exists.
    progress : bool or callable
        True shows bars on stderr for what is computed of a dump; a callable gets ``(done, total)``.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    MissingExtraError
        altair, vl-convert, jinja2 or markdown-it is not installed.
    ArgumentError
        The source is nothing of these, `n_select` is not accepted, or `output` is no .html.
    FileError, DumpError, DataError
        The source is missing, damaged or none of ours; or `output` exists or cannot be written. Nothing is left then.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import moefps
    >>> X = np.array([[[1.0, 0.0, 0.0]], [[0.9, 0.1, 0.0]], [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]])
    >>> page = moefps.write_report(moefps.select(X, 3), pathlib.Path(tempfile.mkdtemp()) / "report.html")
    >>> page.read_text(encoding="utf-8").splitlines()[0]
    '<!doctype html>'
    """
    _check_extra()
    target = _check_output(output, overwrite=overwrite)
    if title is not None and not str(title).strip():
        raise ArgumentError(f"title: {title!r}; accepted: a text that is not empty")
    from moefps.reporting.page import render_page
    from moefps.reporting.sources import check_source, read_content

    found = check_source(source, n_select)
    _refuse_own_source(source, output)
    page = render_page(read_content(found, n_select, progress), title=title)
    with atomic_file(output, overwrite=overwrite) as file:
        file.write(page)
    return target


def _check_extra() -> None:
    """Check that what the page is made with is there, without importing it."""
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"a report needs {' and '.join(missing)}: pip install 'moefps[report]'")


def _check_output(output: Any, *, overwrite: bool) -> Path:
    if not isinstance(output, str | os.PathLike):
        raise ArgumentError(f"output: got a {type(output).__name__}; accepted: the name of an .html")
    suffix = Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ArgumentError(f"{os.fspath(output)}: the suffix is {suffix or 'missing'}; accepted: .html")
    return check_destination(output, overwrite=overwrite)


def _refuse_own_source(source: Any, output: PathLike) -> None:
    """Keep the page out of the folder that it is about, whose files are what its command wrote and nothing else."""
    place = source if isinstance(source, str | os.PathLike) else getattr(source, "path", None)
    if place is not None and Path(place).resolve() in Path(output).resolve().parents:
        raise FileError(f"{os.fspath(output)}: is in the source, {os.fspath(place)}; give another place for the page")

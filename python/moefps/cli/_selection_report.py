"""What `moefps select` and `moefps demo` print about a selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._render import can_draw_bars, emit_frame, emit_record, one_line, print_table, sparkline

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

    from moefps import Selection, SelectionEvaluation
    from moefps._typing import Float64Array
    from moefps.cli._outputs import Sink
    from moefps.selection import RandomInterval

__all__ = ["report_selection"]

_MAX_ROWS_ON_SCREEN = 40
_MAX_WIDTH = 48


def report_selection(
    sink: Sink,
    selection: Selection,
    typicality: Float64Array | None,
    evaluation: SelectionEvaluation | None,
    *,
    names: tuple[str, ...] | None = None,
    labels: npt.NDArray[Any] | None = None,
    kind: str | None = None,
    rows: pl.DataFrame | None = None,
) -> None:
    """Write the picks and say in a few sentences what they are worth.

    Parameters
    ----------
    sink : Sink
        Where to.
    selection : Selection
        The picks.
    typicality : ndarray of shape [N], optional
        Percentile of every sample.
    evaluation : SelectionEvaluation, optional
        How the picks compare with random ones.
    names : tuple of str, optional
        A name for every sample.
    labels : ndarray of shape [N], optional
        A label for every sample.
    kind : str, optional
        The kind of fingerprints, where they are those of a dump.
    rows : polars.DataFrame, optional
        A dump's own columns, a row a fingerprint.
    """
    from moefps.io import write_table
    from moefps.io.picks import pick_table

    frame = pick_table(selection, typicality, names=names, labels=labels, rows=rows)
    lines = summary_lines(selection, evaluation, labels)
    if kind is not None:
        lines.append(f"fingerprints of kind {kind}")
    if sink.output is not None:
        write_table(frame, sink.output, file_format=sink.file_format, overwrite=sink.overwrite)
        if sink.output_format == "table":
            click.echo(f"{sink.output}: {counted(frame.height, 'pick')}")
            click.echo("\n".join(lines))
        else:
            kinds = {} if kind is None else {"kind": kind}
            emit_record({**_summary_record(sink.output, selection, evaluation), **kinds}, sink.output_format)
    elif sink.output_format == "table":
        print_selection(frame)
        click.echo("\n".join(lines))
    else:
        emit_frame(frame, sink.output_format)
        # stdout belongs to the rows, and what was asked for must not be lost.
        if evaluation is not None:
            click.echo("\n".join(lines), err=True)


def typicality_word(percentile: float) -> str:
    """Say how common a path is: the commonest quarter, the rarest tenth, or between.

    Examples
    --------
    >>> typicality_word(97.0), typicality_word(50.0), typicality_word(3.0)
    ('common', 'usual', 'rare')
    """
    if percentile >= 75:
        return "common"
    return "usual" if percentile >= 10 else "rare"


def print_selection(frame: pl.DataFrame) -> None:
    """Print the picks as a table for people; the middle of a long one is left out on a terminal."""
    import sys

    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column, dtype in frame.schema.items():
        is_text = not dtype.is_numeric()
        justify = "left" if is_text else "right"
        table.add_column(
            column.replace("cluster_size", "cluster size"),
            justify=justify,  # type: ignore[arg-type]
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if is_text else len(column),
        )
    n_rows = frame.height
    is_cut = sys.stdout.isatty() and n_rows > _MAX_ROWS_ON_SCREEN
    for i, row in enumerate(frame.iter_rows(named=True)):
        if is_cut and i == _MAX_ROWS_ON_SCREEN - 10:
            table.add_row("...")
        if not is_cut or i < _MAX_ROWS_ON_SCREEN - 10 or i >= n_rows - 5:
            table.add_row(*(_cell(column, value) for column, value in row.items()))
    print_table(table)
    if is_cut:
        click.echo(f"{n_rows:,} picks, the middle left out; -o sel.csv writes them all")


def _cell(column: str, value: Any) -> str:
    if column == "radius":
        return f"{value:#.5g}"
    if column == "typicality":
        return f"{value:.1f} {typicality_word(value):>6}"
    if column == "cluster_size":
        return f"{value:,}"
    return one_line(value, _MAX_WIDTH)


def summary_lines(
    selection: Selection, evaluation: SelectionEvaluation | None, labels: npt.NDArray[Any] | None = None
) -> list[str]:
    """Say what the picks are worth, beside random ones where they were compared."""
    n_samples, n_selected = len(selection.assignment), len(selection.indices)
    radius, first = float(selection.radii[-1]), float(selection.radii[0])
    lines = []
    if first > 0 and n_selected > 1 and can_draw_bars():
        lines.append(f"radius by pick  {sparkline(selection.radii.tolist())}")
    lines.append(
        f"{counted(n_samples, 'sample')}, each within {radius:.4g} of one of {counted(n_selected, 'pick')}"
        + (f" ({first:.4g} of the first alone)" if n_selected > 1 else "")
    )
    if evaluation is not None:
        lines += _comparison_lines(evaluation)
    elif labels is not None:
        n_covered = len(set(labels[selection.indices].tolist()))
        lines.append(f"labels covered: {n_covered} of {len(set(labels.tolist()))}")
    return lines


def _comparison_lines(evaluation: SelectionEvaluation) -> list[str]:
    """Set the picks beside random ones, a line for each measure."""
    rows: list[tuple[str, float, RandomInterval]] = [
        ("covering radius", evaluation.covering_radius, evaluation.random_covering_radius),
        ("mean distance to a pick", evaluation.mean_distance, evaluation.random_mean_distance),
    ]
    if evaluation.labels_covered is not None and evaluation.random_labels_covered is not None:
        title = f"labels covered, of {evaluation.n_labels}"
        rows.append((title, evaluation.labels_covered, evaluation.random_labels_covered))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'':{width}}  {'picks':>8}  {'random':>8}  95 % of {evaluation.n_random} random"]
    for title, value, random in rows:
        between = f"{random.low:.4g} to {random.high:.4g}"
        lines.append(f"{title:{width}}  {value:8.4g}  {random.mean:8.4g}  {between}")
    return lines


def _summary_record(
    output: str, selection: Selection, evaluation: SelectionEvaluation | None
) -> dict[str, str | int | float | None]:
    """Give the summary for programs, flat, so that it fits a row of a table."""
    record: dict[str, str | int | float | None] = {
        "output": output,
        "n_samples": len(selection.assignment),
        "n_selected": len(selection.indices),
        "first_radius": float(selection.radii[0]),
        "covering_radius": float(selection.radii[-1]),
        "mean_distance": float(selection.distances.mean()),
    }
    if evaluation is None:
        return record
    record |= {
        "labels_covered": evaluation.labels_covered,
        "n_labels": evaluation.n_labels,
        "n_random": evaluation.n_random,
    }
    for name in ("covering_radius", "mean_distance", "labels_covered"):
        interval = getattr(evaluation, f"random_{name}")
        for part in ("mean", "low", "high"):
            record[f"random_{name}_{part}"] = None if interval is None else float(getattr(interval, part))
    return record

"""Results on stdout, for people or for programs."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from rich.table import Table

__all__ = ["SHORTEST", "can_draw_bars", "duration", "emit_frame", "emit_record", "one_line", "print_table", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_PIPE_WIDTH = 1000
SHORTEST = 0.001
"""Seconds below which it does not matter how many."""


def emit_record(record: Mapping[str, Any], output_format: str) -> None:
    """Print one record as json, csv or parquet; its values are numbers, text or None."""
    if output_format == "json":
        click.echo(json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False))
        return
    import polars as pl

    emit_frame(pl.DataFrame([record]), output_format)


def emit_frame(frame: pl.DataFrame, output_format: str) -> None:
    """Print a table as json, csv or parquet."""
    from moefps.io import table_bytes

    if output_format == "parquet":
        _write_stdout(table_bytes(frame, "parquet"))
    else:
        click.echo(table_bytes(frame, "json" if output_format == "json" else "csv").decode(), nl=False)


def _write_stdout(data: bytes) -> None:
    """Write bytes that are not text, unless a person would get them on the screen."""
    if sys.stdout.isatty():
        raise click.UsageError("--format parquet is not for a terminal, pipe it or write it to a file")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_table(table: Table) -> None:
    """Print a rich table, as wide as it needs where no terminal sets a limit."""
    from rich.console import Console

    # Names of users are printed as they are, brackets too.
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    # Printed by click, as rich would end the process by itself where the reader of a pipe went away.
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)


def one_line(value: Any, width: int | None = None) -> str:
    r"""Write somebody's text so that it fits a cell: one line, nothing that a terminal would obey, cut if it is long.

    Examples
    --------
    >>> one_line("two\nlines"), one_line(None), one_line("a long text", 6)
    ('two lines', '', 'a lon…')
    """
    text = "" if value is None else " ".join(str(value).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Draw values as one line of bars, from 0 to the largest.

    Examples
    --------
    >>> sparkline([4.0, 2.0, 0.0])
    '█▄▁'
    """
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    n_bars = min(width, len(values))
    # Where several values share a bar, the last one stands for them: that is what was reached there.
    shown = [values[(i + 1) * len(values) // n_bars - 1] for i in range(n_bars)]
    return "".join(_BARS[max(0, min(7, math.ceil(8 * value / top) - 1))] for value in shown)


def can_draw_bars() -> bool:
    """Whether the encoding of stdout has the characters of `sparkline`."""
    try:
        _BARS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def duration(seconds: float) -> str:
    """Give a time in the unit that reads best.

    Examples
    --------
    >>> duration(0.0123), duration(75), duration(200_000)
    ('12 ms', '75 s', '2.3 days')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= SHORTEST else "less than 1 ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86_400:,.1f} days"

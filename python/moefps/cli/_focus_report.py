"""What `moefps focus` prints."""

from __future__ import annotations

import sys
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._render import can_draw_bars, one_line, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from rich.table import Table

    from moefps.metrics.focus import ExpertFocus

__all__ = ["all_as_record", "bar", "print_focus"]

_WIDTH = 100
_BAR_WIDTH = 40
_BLOCKS = " ▏▎▍▌▋▊▉█"
_MOST_LAYERS = 40


def print_focus(
    found: ExpertFocus,
    source: str,
    *,
    by: str,
    top: int,
    expert: tuple[int, int] | None = None,
    tokens: pl.DataFrame | None = None,
) -> None:
    """Print the reading, the bands, a row a layer, and the most focused experts.

    Parameters
    ----------
    found : ExpertFocus
        The result.
    source, by : str
        The dump and the domains, as the user named them.
    top : int
        Rows of lists.
    expert, tokens : optional
        A layer and expert, and its tokens.
    """
    about = found.about
    sizes = [counted(about[f"n_{noun}s"], noun) for noun in ("sample", "token")]
    click.echo(f"{source}: {', '.join(sizes)}; {counted(about['n_domains'], 'domain')} by {by}")
    click.echo(fill(found.reading, _WIDTH, subsequent_indent="  "))
    _print_bands(found)
    _print_layers(found)
    if top:
        _print_experts(found, top)
        if found.coactivation is not None:
            _print_together(found, top)
        if tokens is not None and expert is not None:
            _print_tokens(tokens, expert, top)


def all_as_record(found: ExpertFocus, by: str) -> dict[str, Any]:
    """Give everything as one record for programs."""
    tables = {name: getattr(found, name).to_dicts() for name in ("bands", "layers", "experts", "domains")}
    summary = found.summary.row(0, named=True)
    return {"about": {**found.about, "by": by}, "reading": found.reading, "summary": summary, **tables}


def bar(value: float, most: float, width: int = _BAR_WIDTH, *, plain: bool = False) -> str:
    """Draw a number as a bar, as long as `width` for `most`; what is not 0 is seen.

    Examples
    --------
    >>> bar(6, 8, width=4), bar(5, 8, width=4), bar(0, 8), bar(6, 8, width=4, plain=True)
    ('███', '██▌', '', '###')
    """
    if most <= 0 or value <= 0:
        return ""
    eighths = max(1, round(8 * width * value / most))
    if plain:
        return "#" * max(1, round(eighths / 8))
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _print_bands(found: ExpertFocus) -> None:
    """Draw how many experts are in each band."""
    bands = found.bands
    most = int(bands["n_experts"].max())  # type: ignore[arg-type]
    n_null = int(found.summary["n_null"][0])
    click.echo(f"\nexperts by {_kind(found)}" + (f" ({n_null:,} without one)" if n_null else ""))
    width, plain = len(f"{most:,}"), not can_draw_bars()
    for row in bands.iter_rows(named=True):
        share = "" if row["share"] is None else f"{100 * row['share']:5.1f} %"
        name = f"{row['low']:>3}-{row['high']:<3} {row['band']:<9}"
        click.echo(
            f"  {name} {row['n_experts']:>{width},} {share}  {bar(row['n_experts'], most, plain=plain)}".rstrip()
        )


def _print_layers(found: ExpertFocus) -> None:
    """Print a row a layer; the middle of many is left out on a terminal."""
    has_null = bool(found.summary["n_null"][0])
    names = ["layer", "mean", "std", "chance", "luck", "0-20", "20-40", "40-60", "60-80", "80-100"]
    names += ["none", "counted"] if has_null else ["counted"]
    counted = ["scattered", "light", "medium", "high", "extreme", *(["n_null"] if has_null else [])]
    table = _new_table([(name, True) for name in names])
    n_layers = found.layers.height
    is_cut = sys.stdout.isatty() and n_layers > _MOST_LAYERS
    for i, row in enumerate(found.layers.iter_rows(named=True)):
        if is_cut and i == _MOST_LAYERS - 10:
            table.add_row("...")
        if not is_cut or i < _MOST_LAYERS - 10 or i >= n_layers - 5:
            shares = [_percent(row[name]) for name in ("mean", "std", "chance", "luck")]
            bands = [str(row[name] or "") for name in counted]
            table.add_row(str(row["layer"]), *shares, *bands, _share(row["share_counted"]))
    click.echo(f"\nby layer: {_kind(found)} in percent, experts by band, activations above the threshold")
    print_table(table)
    if is_cut:
        click.echo(f"{n_layers:,} layers, the middle left out; --table layers --format csv has them all")


def _print_experts(found: ExpertFocus, top: int) -> None:
    """Print the most focused experts."""
    prefix = "balanced_" if found.about["balanced"] else ""
    degree, other = f"{prefix}focus_degree", "focus_degree" if prefix else "balanced_focus_degree"
    ranked = found.experts.drop_nulls(degree).sort(degree, descending=True, maintain_order=True).head(top)
    if not ranked.height:
        return
    titles = {"focus_degree": "focus\ndegree", "balanced_focus_degree": "balanced\ndegree"}
    columns = [("layer", True), ("expert", True), (titles[degree], True), ("domain", False)]
    columns += [("second", False), ("entropy", True), (titles[other], True), ("counted", True)]
    table = _new_table(columns)
    for row in ranked.iter_rows(named=True):
        second = "" if row["second_domain"] is None else f"{row['second_domain']} {row['second_percent']:.1f}"
        table.add_row(
            str(row["layer"]),
            str(row["expert"]),
            _percent(row[degree]),
            one_line(row[f"{prefix}domain"]),
            one_line(second),
            "" if row["focus_entropy"] is None else f"{row['focus_entropy']:.2f}",
            _percent(row[other]),
            f"{row['n_counted']:,}",
        )
    click.echo("\nmost focused experts, and how many activations that is of")
    print_table(table)


def _print_together(found: ExpertFocus, top: int) -> None:
    """Print the pairs of experts that work together most."""
    pairs = found.together(n=top)
    names = ("layer", "domain", "expert", "other", "tokens", "share", "chance")
    table = _new_table([(name, name != "domain") for name in names])
    for row in pairs.iter_rows(named=True):
        cells = [row["layer"], one_line(row["domain"]), row["expert"], row["other"], f"{row['tokens']:,}"]
        table.add_row(*(str(cell) for cell in cells), _share(row["share"]), _share(row["chance"]))
    click.echo("\nexperts that work together: of the one's tokens in a domain, how many choose the other, too")
    print_table(table)


def _print_tokens(tokens: pl.DataFrame, expert: tuple[int, int], top: int) -> None:
    """Print the tokens that an expert is most active on."""
    table = _new_table([(name, dtype.is_numeric()) for name, dtype in tokens.schema.items()])
    for row in tokens.head(top).iter_rows(named=True):
        table.add_row(*(f"{v:.4f}" if name == "activation" else one_line(v) for name, v in row.items()))
    click.echo(f"\nlayer {expert[0]}, expert {expert[1]}: {counted(tokens.height, 'token')}, the most active first")
    print_table(table)


def _new_table(columns: Sequence[tuple[str, bool]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    return table


def _kind(found: ExpertFocus) -> str:
    return "balanced focus degree" if found.about["balanced"] else "focus degree"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"

"""What `moefps metrics` prints for people."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._render import emit_frame, one_line, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from rich.table import Table

    from moefps.metrics import RoutingMetrics

__all__ = ["mark", "print_metrics", "print_registry", "short_number"]

_WORST_LAYERS = 8
_MOST_GROUPS = 6
_GROUP_WIDTH = 16
_NUMBER = 8
_NARROW = 100


def print_registry(output_format: str) -> None:
    """List every metric with its definition."""
    from moefps.metrics import list_metrics

    frame = list_metrics()
    if output_format != "table":
        emit_frame(frame, output_format)
        return
    for family, part in frame.group_by("family", maintain_order=True):
        click.echo(click.style(str(family[0]), bold=True) if sys.stdout.isatty() else str(family[0]))
        for row in part.iter_rows(named=True):
            facts = [row["range"], {"up": "higher is better", "down": "lower is better"}.get(row["better"])]
            facts += [row[name] and f"{name} {row[name]}" for name in ("chance", "target", "needs")]
            click.echo(f"  {row['metric']}")
            click.echo(f"      {row['formula']}")
            click.echo(f"      {'; '.join(fact for fact in facts if fact)}")


def print_metrics(found: RoutingMetrics, source: str, *, all_layers: bool = False) -> None:
    """Print the metrics over all layers, then the layers from the worst, then what has no value and why.

    Parameters
    ----------
    found : RoutingMetrics
        The metrics.
    source : str
        What they are of.
    all_layers : bool
        True prints all layers, not only the worst.
    """
    import polars as pl

    click.echo(_head(found, source))
    summary = found.summary.filter(pl.col("mean").is_not_null())
    if "group" in summary.columns:
        _print_groups(found, summary)
    elif summary.height:
        _print_summary(summary, n_layers=found.details["layer"].n_unique())
    if summary.height:
        _print_layers(found, None if all_layers else _WORST_LAYERS)
    _print_reasons(found)
    _print_elsewhere(found)


def mark(is_met: bool | None) -> str:
    """Give the sign of a target that is met or missed, in plain text where the terminal has no such signs.

    Examples
    --------
    >>> mark(None)
    ''
    """
    if is_met is None:
        return ""
    signs = ("✓", "✗") if _has_signs() else ("ok", "MISS")
    return signs[0] if is_met else signs[1]


def short_number(value: float | None) -> str:
    """Write a number with as many digits as one reads: four that count, no exponent where it can be helped.

    Examples
    --------
    >>> [short_number(x) for x in (0.0, 1234567.0, 9999.96, 12.3456, 0.01234, 1e-9, None)]
    ['0', '1,234,567', '10,000.0', '12.35', '0.0123', '1.0e-09', '']
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    if abs(value) < 0.00005:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


def _has_signs() -> bool:
    try:
        "✓✗".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _head(found: RoutingMetrics, source: str) -> str:
    about = found.about
    sizes = [
        counted(int(about[name]), noun)
        for name, noun in (("n_samples", "sample"), ("n_tokens", "token"), ("n_layers", "layer"))
        if about.get(name) is not None
    ]
    convention = about.get("convention")
    said = ", ".join(sizes) + (f"; convention {convention}" if convention not in {None, "literature"} else "")
    return f"{source}: {said}" if said else source


def _groups_that_fit(groups: Sequence[Any], summary: pl.DataFrame) -> list[Any]:
    """Give the first groups, as many as the terminal has room for beside the names of the metrics."""
    names = max(len(name) for name in summary["metric"])
    target = max((len(text) for text in summary["target"].drop_nulls()), default=0)
    left = _columns() - names - target - 8
    fitting: list[Any] = []
    for group in groups[:_MOST_GROUPS]:
        left -= max(_NUMBER, len(one_line(group, _GROUP_WIDTH))) + 3
        if left < 0 and fitting:
            break
        fitting.append(group)
    return fitting


def _table(columns: Sequence[tuple[str, bool]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, is_number in columns:
        # Names of metrics and numbers are read whole or not at all; what is folded is the text of a target.
        kept = is_number or name in {"metric", "worst"}
        table.add_column(name, justify="right" if is_number else "left", no_wrap=kept, overflow="fold")
    return table


def _print_summary(summary: pl.DataFrame, *, n_layers: int) -> None:
    """Print a row a metric: the mean over layers beside its target, and the span."""
    import polars as pl

    from moefps.metrics import find_metric

    is_narrow = _columns() < _NARROW
    has_interval = bool(summary["lo"].is_not_null().any())
    has_target = bool(summary["target"].is_not_null().any())
    columns = [("metric", False), ("mean" if n_layers > 1 else "value", True)]
    columns += [("interval", True)] if has_interval else []
    columns += [("min", True), ("max", True)] if n_layers > 1 and not is_narrow else []
    columns += [("chance", True), ("better", False)] if not is_narrow else []
    columns += [("target", False), ("", False)] if has_target else []
    table = _table(columns)
    family = None
    for row in summary.iter_rows(named=True):
        if family not in {None, find_metric(row["metric"]).family}:
            table.add_section()
        family = find_metric(row["metric"]).family
        cells = {
            "metric": row["metric"],
            "mean": short_number(row["mean"]),
            "value": short_number(row["mean"]),
            "interval": "" if row["lo"] is None else f"{short_number(row['lo'])} to {short_number(row['hi'])}",
            "min": short_number(row["min"]),
            "max": short_number(row["max"]),
            "chance": short_number(row["chance"]),
            "better": {"up": "higher", "down": "lower"}.get(row["better"], ""),
            "target": row["target"] or "",
            "": mark(row["met"]),
        }
        table.add_row(*(_cell(name, cells[name], row["met"]) for name, _ in columns))
    click.echo()
    print_table(table)
    for note, rows in summary.filter(pl.col("note").is_not_null()).group_by("note", maintain_order=True):
        click.echo(f"{', '.join(rows['metric'])}: {note[0]}")


def _print_groups(found: RoutingMetrics, summary: pl.DataFrame) -> None:
    """Print a row a metric and a column a group."""
    groups = summary["group"].unique(maintain_order=True).to_list()
    shown = _groups_that_fit(groups, summary)
    heads = [(one_line(group, _GROUP_WIDTH), True) for group in shown]
    table = _table([("metric", False), *heads, ("target", False)])
    for _, rows in summary.group_by("metric", maintain_order=True):
        by_group = {row["group"]: row for row in rows.iter_rows(named=True)}
        cells = []
        for group in shown:
            row = by_group.get(group)
            text = "" if row is None else f"{short_number(row['mean'])} {mark(row['met'])}".rstrip()
            cells.append(_cell("", text, None if row is None else row["met"]))
        table.add_row(rows["metric"][0], *cells, rows["target"][0] or "")
    click.echo(f"\nmeans over layers, by {found.about.get('by', 'group')}")
    print_table(table)
    if len(groups) > len(shown):
        click.echo(f"{len(groups) - len(shown):,} more groups: --format csv or -o DIR has them all")


def _print_layers(found: RoutingMetrics, most: int | None) -> None:
    """Print the layers from the worst, with the metrics that have targets, or else what stands out most."""
    import polars as pl

    worst = found.worst_layers(most)
    if worst.height < 2:
        return
    keys = [name for name in ("group", "layer") if name in worst.columns]
    targeted = found.layers.filter(pl.col("met").is_not_null())["metric"].unique(maintain_order=True).to_list()
    left = _columns() - sum(14 for _ in keys) - 10 - max(len(name) for name in worst["worst_metric"])
    shown = []
    for name in targeted:
        left -= max(len(name), _NUMBER) + 3
        if left < 0:
            break
        shown.append(name)
    table = _table(
        [*((name, name == "layer") for name in keys), *((name.replace("_", " "), True) for name in shown)]
        + ([("missed", True)] if targeted else [])
        + [("worst", False)]
    )
    for row in worst.iter_rows(named=True):
        place = pl.all_horizontal(pl.col(name) == row[name] for name in keys)
        values = {r["metric"]: r for r in found.layers.filter(place).iter_rows(named=True)}
        cells = [one_line(row[name], _GROUP_WIDTH) for name in keys]
        for name in shown:
            value = values.get(name, {"value": None, "met": None})
            cells.append(_cell("", f"{short_number(value['value'])} {mark(value['met'])}".rstrip(), value["met"]))
        cells += [str(row["n_missed"])] if targeted else []
        table.add_row(*cells, row["worst_metric"])
    total = found.layers.select(keys).unique().height
    what = "layers" if keys == ["layer"] else "layers of groups"
    click.echo(f"\nworst {worst.height} of {total:,} {what} first" if worst.height < total else f"\nworst {what} first")
    print_table(table)


def _print_reasons(found: RoutingMetrics) -> None:
    """Say once for each reason which metrics have no value."""
    import polars as pl

    empty = found.summary.filter(pl.col("mean").is_null(), pl.col("reason").is_not_null())
    if not empty.height:
        return
    click.echo("\nwithout a value:")
    for reason, rows in empty.group_by("reason", maintain_order=True):
        names = rows["metric"].unique(maintain_order=True).to_list()
        said = ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
        click.echo(f"  {said}: {reason[0]}")


def _print_elsewhere(found: RoutingMetrics) -> None:
    """Say where the metrics are that are no number of a layer."""
    import polars as pl

    for name in ("dead_experts", "underused_experts"):
        listed = found.layers.filter(pl.col("metric") == name, pl.col("text").fill_null("") != "")
        if listed.height and listed.height <= _WORST_LAYERS:
            places = [f"layer {row['layer']}: {row['text']}" for row in listed.iter_rows(named=True)]
            click.echo(f"{name.replace('_', ' ')}: {'; '.join(places)}")
    click.echo("values by expert, by domain and by pair of experts: -o DIR")


def _cell(name: str, text: str, is_met: bool | None) -> Any:
    """Colour what misses its target, where colours are wanted."""
    from rich.text import Text

    wanted = is_met is False and name in {"mean", "value", ""} and not os.environ.get("NO_COLOR")
    return Text(text, style="red" if wanted else "")


def _columns() -> int:
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else 1000

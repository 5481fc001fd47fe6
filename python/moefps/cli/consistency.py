"""`moefps consistency`: how alike two checkpoints route the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import format_option, parse_numbers, progress_options, threads_option
from moefps.cli._outputs import check_table_output, output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from moefps.metrics.consistency import RoutingConsistency

EXIT_MISSED = 1

_MOST_ROWS = 12
_GROUP_WIDTH = 24
_METRIC = "routing_consistency"
_COLUMNS = {
    _METRIC: "consistency",
    "exact_match": "exact",
    "top1_match": "top-1",
    "jaccard": "jaccard",
    "tv": "tv",
    "js": "js",
}
"""What stands over the columns of the table."""


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--layers", metavar="i-j,k", help="Which layers, counted from 0; all when not given.")
@click.option("--by", metavar="COLUMN", help="Repeat everything for each value of a column of A's samples or tokens.")
@click.option(
    "--ci", type=float, default=0.95, show_default=True, metavar="p", help="Level of bootstrap intervals over samples."
)
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    metavar="n",
    help="Resamples for the intervals; 0 for none.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="n", help="Seed of the resamples.")
@click.option("--all-layers", is_flag=True, help="Show all layers, not only the lowest.")
@click.option("--check", is_flag=True, help="Exit with 1 where the mean over layers misses its target.")
@output_option("FILE|DIR", "Write the table of layers to a .csv, .json or .parquet, or all tables to a folder, too.")
@overwrite_option("Replace such a file or folder where it exists.")
@threads_option
@format_option
@progress_options
def consistency(
    a: str,
    b: str,
    layers: str | None,
    output: str | None,
    overwrite: bool,
    all_layers: bool,
    check: bool,
    ci: float,
    resamples: int,
    threads: int | None,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
    **settings: Any,
) -> int:
    """Say how alike two dumps of the same tokens are: two checkpoints, two precisions, two quantisations.

    A and B are dumps of the same texts in the same order; that their tokens are the same is checked one by one.
    consistency is the share of a token's k experts that both chose, with the target > 0.85: ✓ or ✗. Layers are shown
    from the lowest. With --format json, csv or parquet the table of layers is printed, a row a layer and metric.

    \b
    Columns of the table:
      consistency   mean share of the k slots that hold the same experts
      exact         share of tokens with the same set of experts
      top-1         share of tokens with the same expert of largest weight
      jaccard       experts in common by experts of either
      tv, js        total variation and Jensen-Shannon divergence (base 2) of
                    the weights divided by their sum: 0 is equal, 1 is apart

    \b
    Examples:
      moefps consistency base.dump tuned.dump
      moefps consistency float32.dump bfloat16.dump --check
      moefps consistency a.dump b.dump --by domain -o found/
      moefps consistency a.dump b.dump --layers 0-3 --format csv
    """  # noqa: D301 (click wants the character itself)
    from moefps.cli._render import emit_frame

    is_file = output is not None and check_table_output(output, overwrite=overwrite, inputs=(a, b))
    with (
        in_words_of_the_command(None, a=a, b=b),
        progress_on_stderr("comparing", show_progress=show_progress, quiet=quiet) as progress,
    ):
        from moefps.metrics.consistency import routing_consistency

        found = routing_consistency(
            a,
            b,
            layers=parse_numbers(layers, "--layers"),
            ci=ci if resamples else None,
            n_resamples=max(1, resamples),
            n_threads=threads,
            progress=progress or False,
            **settings,
        )
    if output is not None:
        _write(found, output, output_format, is_file=is_file, overwrite=overwrite)
    if output_format == "table":
        _print(found, None if all_layers else _MOST_ROWS)
        if output is not None:
            click.echo(f"\n{output}: {'layers' if is_file else ', '.join(found.tables())}")
    else:
        emit_frame(found.layers, output_format)
    return EXIT_MISSED if check and not found.met else 0


def _write(found: RoutingConsistency, output: str, output_format: str, *, is_file: bool, overwrite: bool) -> None:
    from moefps.io import write_table
    from moefps.io.table_folders import write_table_folder

    if is_file:
        write_table(found.layers, output, overwrite=overwrite)
        return
    file_format: Any = output_format if output_format != "table" else "csv"
    write_table_folder(output, found.tables(), found.about, file_format=file_format, overwrite=overwrite)


def _print(found: RoutingConsistency, most: int | None) -> None:
    """Print the layers from the lowest, the means over layers, and what is to be known beside them."""
    from moefps._words import counted

    about = found.about
    sizes = ((about["n_samples"], "sample"), (about["n_tokens"], "token"), (about["n_layers"], "layer"))
    click.echo(f"{about['a']} and {about['b']}: {', '.join(counted(number, noun) for number, noun in sizes)}")
    if about["by"] is not None:
        click.echo(f"\nmeans over layers, by {about['by']}")
        _print_rows(_wide(found.summary, "mean", ["group"]), ["group"], most, "group")
        click.echo("\nby layer")
    else:
        click.echo()
    keys = ["layer"] if about["by"] is None else ["group", "layer"]
    last = [] if about["by"] is not None else _last_rows(found.summary)
    _print_rows(_wide(found.layers, "value", keys), keys, most, "layer", last)
    _print_notes(found)


def _wide(frame: pl.DataFrame, value: str, keys: list[str]) -> pl.DataFrame:
    """Give a row a key, lowest first: a column for each metric, and the interval and mark of the first."""
    import polars as pl

    first = frame.filter(pl.col("metric") == _METRIC).select(*keys, "lo", "hi", "met")
    wide = frame.pivot("metric", index=keys, values=value).join(first, on=keys, maintain_order="left")
    return wide.sort(_METRIC, nulls_last=True, maintain_order=True)


def _last_rows(summary: pl.DataFrame) -> list[dict[str, Any]]:
    """Give the means over layers, and the values under chance."""
    import polars as pl

    mean, chance = (
        _wide(summary.with_columns(layer=pl.lit(name)), name, ["layer"]).row(0, named=True)
        for name in ("mean", "chance")
    )
    return [mean, {**chance, "lo": None, "hi": None, "met": None}]


def _print_rows(
    wide: pl.DataFrame, keys: list[str], most: int | None, noun: str, last: Sequence[dict[str, Any]] = ()
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from moefps._words import counted
    from moefps.cli._metrics_report import mark
    from moefps.cli._render import print_table

    has_interval = bool(wide["lo"].is_not_null().any())
    shown = wide.head(wide.height if most is None else most)
    names = _fitting(shown, keys, has_interval=has_interval)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
    for name in [*keys, *names, ""]:
        table.add_column(
            _COLUMNS.get(name, name),
            justify="left" if name in {"group", ""} else "right",
            no_wrap=name != "group",
            max_width=_GROUP_WIDTH if name == "group" else None,
        )

    def add(row: dict[str, Any]) -> None:
        cells = {name: "" if row[name] is None else f"{row[name]:.4f}" for name in _COLUMNS}
        cells["interval"] = "" if row["lo"] is None else f"{row['lo']:.3f} to {row['hi']:.3f}"
        table.add_row(*(str(row[key]) for key in keys), *(cells[name] for name in names), mark(row["met"]))

    for row in shown.iter_rows(named=True):
        add(row)
    if last:
        table.add_section()
    for row in last:
        add(row)
    print_table(table)
    if shown.height < wide.height:
        rest = counted(wide.height - shown.height, f"more {noun}")
        click.echo(f"{rest}: --all-layers shows all")


def _fitting(shown: pl.DataFrame, keys: list[str], *, has_interval: bool) -> list[str]:
    """Give the columns that the terminal has room for; the last ones go first."""
    from rich.console import Console

    first, *others = _COLUMNS
    names = [first, *(["interval"] if has_interval else []), *others]
    console = Console()
    if not console.is_terminal:
        return names
    widths = {name: max(len(title), 6) for name, title in _COLUMNS.items()} | {"interval": 14}
    if "group" in keys:
        longest = max((len(str(group)) for group in shown["group"]), default=0)
        widths["group"] = min(_GROUP_WIDTH, max(longest, len("group")))
    # Two columns stand two apart; at the end is the mark.
    left = console.width - 3 - sum(widths.get(key, 6) + 2 for key in keys)
    while len(names) > 1 and sum(widths[name] + 2 for name in names) > left:
        names.pop()
    return names


def _print_notes(found: RoutingConsistency) -> None:
    """Say whether the target is met, and what is missing and why, once for each reason."""
    import polars as pl

    from moefps._words import counted
    from moefps.cli._metrics_report import mark

    click.echo()
    target = found.summary.filter(pl.col("metric") == _METRIC)
    n_missed, n_layers = int(target["n_missed"].sum()), int(target["n_layers"].sum())
    said = "mean over layers" if found.about["by"] is None else "mean over layers of every group"
    judged = (
        f"{'met' if found.met else 'missed'} by the {said} {mark(found.met)}, "
        f"missed by {n_missed:,} of {counted(n_layers, 'layer')}"
    )
    has_value = bool(target["mean"].is_not_null().any())
    click.echo(f"target {target['target'][0]}: {judged if has_value else 'not judged, as there is no value'}")
    lost = found.about["lost_slots"]
    if lost:
        click.echo(
            f"{counted(lost, 'slot')} of both dumps hold no expert of their own (empty, passive or repeated): "
            "consistency, which is divided by k, stays below 1 there; jaccard does not"
        )
    without = found.about["tokens_without_group"]
    if without:
        click.echo(f"{counted(without, 'token')} without a value of {found.about['by']} left out")
    empty = found.layers.filter(pl.col("value").is_null())
    for reason, rows in empty.group_by("reason", maintain_order=True):
        names = (_COLUMNS[name] for name in rows["metric"].unique(maintain_order=True))
        click.echo(f"without a value: {', '.join(names)}: {reason[0]}")
    unbound = found.layers.filter(pl.col("value").is_not_null(), pl.col("reason_ci").is_not_null())
    for reason in unbound["reason_ci"].unique(maintain_order=True):
        click.echo(f"without an interval: {reason}")

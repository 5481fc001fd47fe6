"""`moefps metrics`: routing metrics of a dump, or what fingerprints alone tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import format_option, parse_numbers, progress_options, threads_option
from moefps.cli._outputs import check_table_output, output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr

if TYPE_CHECKING:
    import polars as pl

    from moefps.metrics import RoutingMetrics

EXIT_MISSED = 1


@click.command()
@click.argument("source", required=False, metavar="DUMP|X.npy")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Only this metric; may be given several times."
)
@click.option("--layers", metavar="i-j,k", help="Which layers, counted from 0; all when not given.")
@click.option("--by", metavar="COLUMN", help="Repeat everything for each value of a column of the samples or tokens.")
@click.option(
    "--targets",
    metavar="spectra|none|FILE",
    default="spectra",
    show_default=True,
    help="Which targets: the checklist's, none, or those of a .toml or .json file.",
)
@click.option(
    "--convention",
    type=click.Choice(["literature", "spectra"]),
    default="literature",
    show_default=True,
    help="Whose formulas: those of the literature, or the numbers of the original SPECTRA code.",
)
@click.option(
    "--capacity-factor",
    type=float,
    default=1.25,
    show_default=True,
    metavar="c",
    help="What an expert may hold, as a multiple of its share at balance.",
)
@click.option("--ci", type=float, metavar="p", help="Bootstrap intervals over samples, such as 0.95.")
@click.option(
    "--resamples", type=int, default=1000, show_default=True, metavar="n", help="Resamples for the intervals."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="n", help="Seed of the resamples.")
@click.option("--segments", is_flag=True, help="Also SRP and SCH, which take another pass.")
@click.option("--vocabulary", is_flag=True, help="Also how experts specialise in token ids, which takes another pass.")
@click.option("--all-layers", is_flag=True, help="Show all layers, not only the worst.")
@click.option("--check", is_flag=True, help="Exit with 1 where a mean over layers misses its target.")
@output_option("DIR", "Write all tables to this folder, too.")
@overwrite_option("Replace such a folder where it exists.")
@threads_option
@format_option
@progress_options
@click.option("--list", "only_list", is_flag=True, help="List all metrics with their definitions, and do nothing else.")
def metrics(
    source: str | None,
    only_list: bool,
    metrics: tuple[str, ...],
    layers: str | None,
    output: str | None,
    overwrite: bool,
    all_layers: bool,
    check: bool,
    resamples: int,
    targets: str,
    threads: int | None,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
    **settings: Any,
) -> int:
    """Compute routing metrics: load, balance, confidence, specialisation, locality.

    A dump gives them all; fingerprints alone (.npy) give those that shares of experts tell, and name the rest. The
    table has a row a metric over all layers, then the worst layers; the mean over layers is held against the target:
    ✓ or ✗. With --format json, csv or parquet the table of layers is printed, a row a layer and metric. A value that
    is not defined is empty, with the reason beside it.

    \b
    Examples:
      moefps metrics traces.dump
      moefps metrics traces.dump --targets mine.toml --check
      moefps metrics traces.dump --by domain --ci 0.95 -o found/
      moefps metrics X.npy --metric gini_coefficient --format json
      moefps metrics --list
    """  # noqa: D301 (click wants the character itself)
    from moefps.cli._metrics_report import print_metrics, print_registry
    from moefps.cli._render import emit_frame
    from moefps.io.table_folders import write_table_folder

    if only_list:
        print_registry(output_format)
        return 0
    if not source:
        raise click.UsageError("missing argument DUMP|X.npy")
    if check and targets == "none":
        raise click.UsageError("--check needs targets, and --targets is none")
    if output is not None:
        check_table_output(output, overwrite=overwrite, inputs=(source,), is_folder=True)
    with (
        in_words_of_the_command(None, source=source, X=source),
        progress_on_stderr("metrics", show_progress=show_progress, quiet=quiet) as progress,
    ):
        from moefps.metrics import routing_metrics

        found = routing_metrics(
            _opened(source),
            metrics=metrics or None,
            targets=None if targets == "none" else targets,
            layers=parse_numbers(layers, "--layers"),
            n_resamples=resamples,
            n_threads=threads,
            progress=progress or False,
            **settings,
        )
    if output is not None:
        tables = {name: _said(frame) for name, frame in found.tables().items()}
        if found.pairs is not None:
            tables["coactivation"] = found.coactivation()
        file_format: Any = output_format if output_format != "table" else "csv"
        write_table_folder(output, tables, found.about, file_format=file_format, overwrite=overwrite)
    if output_format == "table":
        print_metrics(found, source, all_layers=all_layers)
        if output is not None:
            click.echo(f"{output}: {', '.join(tables)}")
    else:
        emit_frame(_said(found.layers), output_format)
    return EXIT_MISSED if check and not _is_met(found, targets) else 0


def _opened(source: str) -> Any:
    """Open a dump, or read fingerprints."""
    from moefps.io import is_dump, load_fingerprints, open_dump

    if is_dump(source):
        return open_dump(source)
    return load_fingerprints((source,)).array


def _is_met(found: RoutingMetrics, targets: str) -> bool:
    """Whether all targets are met; those that nothing can be held against are named, and count if the user set them."""
    from moefps.metrics import find_metric
    from moefps.metrics.targets import resolve_targets

    judged = found.summary.filter(found.summary["met"].is_not_null())
    here = [name for name in resolve_targets(targets) if find_metric(name).command is None]
    unjudged = [name for name in here if name not in judged["metric"].to_list()]
    if unjudged:
        click.echo(f"not judged, without a value here: {', '.join(unjudged)}", err=True)
    return bool(judged["met"].all()) and judged.height > 0 and (targets == "spectra" or not unjudged)


def _said(frame: pl.DataFrame) -> pl.DataFrame:
    """Say in words where a value is infinite: JSON has no such number."""
    import polars as pl

    value = next((name for name in ("value", "mean") if name in frame.columns), None)
    if value is None or "reason" not in frame.columns:
        return frame
    infinite = pl.when(pl.col(value).is_infinite()).then(pl.lit("infinite")).otherwise(pl.col("reason"))
    return frame.with_columns(reason=infinite)

"""`moefps focus`: how focused experts are on domains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import format_option, parse_numbers, progress_options, threads_option
from moefps.cli._outputs import check_table_output, output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr
from moefps.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import polars as pl

    from moefps.io import Dump
    from moefps.io.tables import TableFormat
    from moefps.metrics.focus import ExpertFocus

_OF_CLUSTERS = "cluster:"
_TABLES = ("experts", "domains", "layers", "summary", "tokens", "activations", "together")


@click.command()
@click.argument("dump", metavar="DUMP")
@click.option(
    "--by",
    default="domain",
    show_default=True,
    metavar="COLUMN|cluster:M",
    help="The domains: a column of the samples or of the tokens; or M clusters of the samples, as `select -m M` picks "
    "their centres.",
)
@click.option(
    "--threshold",
    type=float,
    default=0.1,
    show_default=True,
    metavar="t",
    help="An activation counts if it is above; 0.01 to 0.3 are mostly of use.",
)
@click.option(
    "--activation",
    type=click.Choice(["weights", "renormalized", "probs"]),
    default="weights",
    show_default=True,
    help="The weight that the router returned, that divided by the token's sum, or the full distribution.",
)
@click.option("--balanced", is_flag=True, help="Let domains count alike, whatever their number of tokens.")
@click.option("--layers", metavar="i-j,k", help="Which layers, counted from 0; all when not given.")
@click.option("--together", is_flag=True, help="Also show which experts are chosen together in a domain.")
@click.option("--tokens-of", metavar="LAYER:EXPERT", help="Also show the tokens that this expert is most active on.")
@click.option(
    "--table",
    "table_name",
    type=click.Choice(_TABLES),
    help="Which table csv, parquet, json or a file of -o hold.  [default: experts; json: all that is found]",
)
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, metavar="n", help="Rows of lists.")
@output_option("DIR|FILE", "Write all tables to this folder, or one to a .csv, .json or .parquet.")
@overwrite_option()
@threads_option
@format_option
@progress_options
def focus(
    dump: str,
    by: str,
    layers: str | None,
    together: bool,
    tokens_of: str | None,
    table_name: str | None,
    top: int,
    output: str | None,
    overwrite: bool,
    threads: int | None,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Tell how focused experts are on domains.

    An expert's focus degree is the share of its activation that is on tokens of one domain, the one that has most. Only
    activations above the threshold count. Beside it stands the chance level, which an expert has that does not look at
    domains: the share of the largest domain, or, with --balanced, an equal one.

    \b
    Examples:
      moefps focus traces.dump --by domain
      moefps focus traces.dump --by domain --threshold 0.05 --balanced
      moefps focus traces.dump --by segment --activation probs --layers 0-3
      moefps focus traces.dump --by cluster:8 --together -o found/
      moefps focus traces.dump --tokens-of 3:17 --format json
    """  # noqa: D301 (click wants the character itself)
    from moefps.cli._focus_report import all_as_record, print_focus
    from moefps.cli._render import emit_frame, emit_record
    from moefps.io import open_dump

    expert = _parse_expert(tokens_of)
    numbers = parse_numbers(layers, "--layers")
    if table_name == "together" and not together:
        raise click.UsageError("--table together needs --together")
    is_file, write = _writer(output, table_name, output_format, dump, by, overwrite=overwrite)
    with (
        in_words_of_the_command(None),
        progress_on_stderr("activations", show_progress=show_progress, quiet=quiet) as progress,
    ):
        import moefps

        opened = open_dump(dump)
        found = moefps.expert_focus(
            opened,
            _clusters(opened, by, threads) if by.startswith(_OF_CLUSTERS) else by,
            layers=numbers,
            together=together,
            n_threads=threads,
            progress=progress or False,
            **settings,
        )
        tokens = None
        if expert is not None:
            with in_words_of_the_command(None, layer="--tokens-of: layer", expert="--tokens-of: expert"):
                tokens = found.tokens_of(expert[1], expert[0])
    if write is not None:
        write(found)
    if output_format == "table":
        print_focus(found, dump, by=by, top=top, expert=expert, tokens=tokens)
        if output is not None:
            click.echo(f"\n{output}: {table_name or 'experts' if is_file else 'all tables'}")
    elif tokens is not None:
        emit_frame(tokens, output_format)
    elif table_name is None and output_format == "json":
        emit_record(all_as_record(found, by), "json")
    else:
        emit_frame(_table(found, table_name or "experts"), output_format)
        if not quiet:
            click.echo(found.reading, err=True)


def _parse_expert(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    layer, _, expert = text.partition(":")
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in (layer, expert)):
        raise click.UsageError(f"--tokens-of: found {text!r}; accepted: a layer and an expert, such as 3:17")
    return int(layer), int(expert)


def _writer(
    output: str | None, table_name: str | None, output_format: str, dump: str, by: str, *, overwrite: bool
) -> tuple[bool, Callable[[ExpertFocus], object] | None]:
    """Check that the output can be written; say whether it is one table, and give what writes it."""
    from moefps.io import table_format, write_table
    from moefps.io.table_folders import write_table_folder

    if output is None:
        return False, None
    if check_table_output(output, overwrite=overwrite, inputs=(dump,)):
        name = table_name or "experts"
        return True, lambda found: write_table(
            _table(found, name), output, file_format=table_format(output), overwrite=overwrite
        )
    file_format: TableFormat = "csv"
    if output_format in ("json", "parquet"):
        file_format = output_format  # type: ignore[assignment]
    return False, lambda found: write_table_folder(
        output,
        {name: _table(found, name) for name in _TABLES if name != "together" or found.coactivation is not None},
        {**found.about, "by": by, "reading": found.reading},
        file_format=file_format,
        overwrite=overwrite,
    )


def _table(found: ExpertFocus, name: str) -> pl.DataFrame:
    if name == "activations":
        return found.activation_histogram()
    if name == "together":
        return found.together(n=None)
    table: pl.DataFrame = getattr(found, name)
    return table


def _clusters(dump: Dump, by: str, threads: int | None) -> npt.NDArray[Any]:
    """Give the cluster of each sample: the nearest of M picks, numbered as they were picked."""
    import moefps

    text = by.removeprefix(_OF_CLUSTERS)
    most = dump.n_samples
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not is_number or not 2 <= int(text) <= most:
        raise click.UsageError(f"--by: found {by!r}; accepted: a column, or cluster:2 to cluster:{most}, of samples")
    found = dump.fingerprint_set(drop_empty=True)
    if found.n_dropped:
        raise DataError(
            f"{dump.path}: {found.n_dropped:,} of {most:,} samples have no fingerprint, so no cluster; accepted: a "
            "column for --by"
        )
    return moefps.select(found.array, int(text), n_threads=threads).assignment

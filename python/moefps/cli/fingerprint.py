"""`moefps fingerprint`: the fingerprints of a dump to a .npy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import dump_options, format_option, parse_numbers, progress_options
from moefps.cli._outputs import output_option, overwrite_option, refuse_own_input
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import emit_record
from moefps.errors import DataError, DumpError

if TYPE_CHECKING:
    from moefps.io.dump import FingerprintSet


@click.command()
@click.argument("dump", metavar="DUMP")
@output_option("X.npy", "The file to write, float32 [N, L, E].", required=True)
@overwrite_option("Replace what is to be written where it exists.")
@click.option(
    "--table",
    metavar="FILE",
    help="Write what each fingerprint is of, in the same order: a .csv, .json or .parquet with sample, window_start, "
    "n_tokens and the sample's own columns.",
)
@click.option("--layers", metavar="i-j,k", help="Which layers, counted from 0; all when not given.")
@dump_options
@format_option
@progress_options
def fingerprint(
    dump: str,
    output: str,
    overwrite: bool,
    table: str | None,
    layers: str | None,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
    **wanted: Any,
) -> None:
    """Write the fingerprints of a dump to X.npy.

    A fingerprint says, layer by layer, which share of a sample's routing each expert got: [N, L, E] for N samples, or
    for their windows with --window. A sample without a filled slot in some layer has none: that is an error, unless
    --drop-empty leaves it out. The kind is always said; not asked for, it is the one that the dump holds, else weights.

    \b
    Examples:
      moefps fingerprint traces.dump -o X.npy
      moefps fingerprint traces.dump -o X.npy --kind counts --layers 0-3,7
      moefps fingerprint traces.dump -o X.npy --window 32 --stride 8 --table r.csv
    """  # noqa: D301 (click wants the character itself)
    import numpy as np

    from moefps.io import atomic_file, check_destination, open_dump, table_format, write_table

    if Path(output).suffix != ".npy":
        raise click.UsageError(f"-o: found {output!r}; accepted: a name that ends in .npy")
    if table is not None:
        if table_format(table) == "npy":
            raise click.UsageError(f"--table: found {table!r}; accepted: .csv, .json, .parquet")
        refuse_own_input(table, (output,))
        check_destination(table, overwrite=overwrite)
    check_destination(output, overwrite=overwrite)
    numbers = parse_numbers(layers, "--layers")
    with (
        in_words_of_the_command(None),
        progress_on_stderr("fingerprints", show_progress=show_progress, quiet=quiet) as progress,
    ):
        opened = open_dump(dump)
        if not opened.layers:
            raise DumpError(f"{dump}: has no MoE layer, so there are no fingerprints")
        found = opened.fingerprint_set(layers=numbers, progress=progress or False, **wanted)
        if found.n_dropped and not len(found.array):
            raise DataError(f"{dump}: no sample has a fingerprint in all of the layers; --layers chooses among them")
    with atomic_file(output, overwrite=overwrite) as file:
        np.save(file, found.array, allow_pickle=False)
    if table is not None:
        write_table(found.rows, table, overwrite=overwrite)
    record = _record(found, output, table, wanted)
    if output_format == "table":
        _print_record(record)
    else:
        emit_record(record, output_format)


def _record(found: FingerprintSet, output: str, table: str | None, wanted: dict[str, Any]) -> dict[str, Any]:
    n_left_out = None if found.n_left_out is None else int(found.n_left_out.sum())
    return {
        "output": output,
        "table": table,
        "kind": found.kind,
        "n_samples": int(found.array.shape[0]),
        "n_layers": int(found.array.shape[1]),
        "n_experts": int(found.array.shape[2]),
        "bytes": int(found.array.nbytes),
        "window": wanted["window"],
        "stride": wanted["stride"] or wanted["window"],
        "n_dropped": found.n_dropped,
        "n_left_out": n_left_out,
    }


def _print_record(record: dict[str, Any]) -> None:
    from moefps.io.atomic import human_bytes

    window = ""
    if record["window"] is not None:
        window = f", a fingerprint for every {counted(record['window'], 'token')}, {record['stride']:,} apart"
    click.echo(
        f"{record['output']}: {counted(record['n_samples'], 'fingerprint')} of {counted(record['n_layers'], 'layer')} "
        f"and {counted(record['n_experts'], 'expert')}, float32, {human_bytes(record['bytes'])}"
    )
    click.echo(f"  kind {record['kind']}{window}")
    if record["n_dropped"]:
        click.echo(f"  {record['n_dropped']:,} without a fingerprint, left out")
    if record["n_left_out"]:
        what = "probabilities" if record["kind"] == "probs" else "weights"
        click.echo(f"  {counted(record['n_left_out'], 'routing')} of a token in a layer left out, {what} sum to 0")
    if record["table"] is not None:
        click.echo(f"{record['table']}: what each of them is of")

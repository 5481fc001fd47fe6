"""`moefps convert`: a dump of another tool's trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import format_option, progress_options
from moefps.cli._outputs import output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import emit_record

if TYPE_CHECKING:
    from moefps.io.traces import TraceScoring

_SCORINGS = ["softmax", "sigmoid", "softmax_topk", "sqrt_softplus", "probabilities"]


@click.command()
@click.argument("source", metavar="SRC")
@output_option("DUMP", "The folder to write.", required=True)
@overwrite_option("Replace the output where it is a dump.")
@click.option("--top-k", type=int, metavar="k", help="Experts that a token chooses; router logits do not say it.")
@click.option(
    "--scoring",
    type=click.Choice(_SCORINGS),
    help="How the router turns logits into weights.  [default for router logits: softmax]",
)
@click.option(
    "--offsets",
    metavar="FILE|n,n,...",
    help="Where samples begin, [N + 1] from 0 to T, or their lengths, [N]: a .npy, a .txt, or the numbers. Without, "
    "and with none in SRC, all tokens are one sample.",
)
@click.option("--n-experts", type=int, metavar="E", help="Experts of a layer.  [default for ids: the largest + 1]")
@click.option("--first-layer", type=int, metavar="n", help="The model's number of the first layer.  [default: 0]")
@click.option("--samples", metavar="FILE", help="Columns of the samples, a row each: .csv, .jsonl or .parquet.")
@format_option
@progress_options
def convert(
    source: str,
    output: str,
    overwrite: bool,
    top_k: int | None,
    scoring: TraceScoring | None,
    offsets: str | None,
    n_experts: int | None,
    first_layer: int | None,
    samples: str | None,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
) -> None:
    """Make a dump of the trace of another tool.

    SRC is one of

    \b
      a .npz with expert ids [T, L, k], as expert_ids, ids or topk_ids, and
        perhaps weights [T, L, k], router_logits [T, L, E], offsets [N + 1] or
        lengths [N], token_ids [T]; other arrays [N] and [T] become columns
      a .npz of router logits, an array [T, E] for each layer, under its number
        (0, layer_3, model.layers.3.mlp.gate)
      a .npy of router logits [T, L, E], or of expert ids [T, L, k]

    From router logits alone, ids are the k largest (ties go to the lowest id) and weights follow from --scoring; the
    dump says that both are derived. What the model really chose may differ: many add a bias before choosing.

    \b
    Examples:
      moefps convert traces.npz -o traces.dump
      moefps convert logits.npy -o d.dump --top-k 8 --offsets offsets.npy
      moefps convert layers.npz -o d.dump --top-k 6 --scoring sigmoid
      moefps convert ids.npy -o d.dump --n-experts 64 --offsets 120,80,211
    """  # noqa: D301 (click wants the character itself)
    from moefps.cli._dump_report import conversion_record, print_conversion
    from moefps.io import convert_trace
    from moefps.io.texts import read_columns

    names = {
        name: f"--{name.replace('_', '-')}" for name in ("top_k", "n_experts", "first_layer", "offsets", "samples")
    }
    if samples is not None:
        names["samples"] = samples
    with (
        in_words_of_the_command(None, **names),
        progress_on_stderr("converting", show_progress=show_progress, quiet=quiet) as progress,
    ):
        dump = convert_trace(
            source,
            output,
            offsets=_offsets(offsets),
            top_k=top_k,
            scoring=scoring,
            n_experts=n_experts,
            first_layer=first_layer,
            samples=read_columns(samples) if samples is not None else None,
            overwrite=overwrite,
            progress=progress or False,
        )
    record = conversion_record(dump, output)
    if output_format == "table":
        print_conversion(record)
    else:
        record["notes"] = record["notes"] if output_format == "json" else "; ".join(record["notes"])
        emit_record(record, output_format)


def _offsets(text: str | None) -> str | list[int] | None:
    """Tell numbers from the name of a file."""
    if text is None or Path(text).exists():
        return text
    parts = [part.strip() for part in text.split(",")]
    if all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        return [int(part) for part in parts]
    return text

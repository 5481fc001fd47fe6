"""`moefps efficiency`: what a model costs, and what a measured load costs on it."""

from __future__ import annotations

from typing import Any

import click

from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import format_option, progress_options, threads_option
from moefps.cli._outputs import open_sink, output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr

_WORDS = {"context": "--context", "ranks": "--ranks", "top_k": "--top-k"}


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--dump", metavar="DUMP", help="A trace of this model: what its experts spent, and how ranks share it.")
@click.option(
    "--ranks",
    metavar="1,2,4,8",
    help="Numbers of ranks that share out the experts, for --dump.  [default: 1,2,4,8]",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    metavar="n",
    help="Positions that are there for attention to look at.",
)
@click.option("--top-k", type=click.IntRange(min=1), metavar="k", help="Experts a token, instead of the model's own.")
@output_option("FILE", "Write all numbers to a .json, .csv or .parquet.")
@overwrite_option()
@threads_option
@format_option
@progress_options
def efficiency(
    model: str,
    dump: str | None,
    ranks: str | None,
    context: int,
    top_k: int | None,
    output: str | None,
    overwrite: bool,
    threads: int | None,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
) -> None:
    """Count parameters and operations a token of MODEL, dense against active.

    MODEL is a folder with a config.json, such a file, or the name of a family of transformers, such as `mixtral`, whose
    default configuration is taken. Nothing is downloaded and no weights are loaded.

    A matrix costs two operations (FLOPs) for each of its numbers, an expert costs the tokens that choose it, and
    attention 2 x positions x heads x (key size + value size). Embeddings are looked up and cost nothing.

    With --dump, experts are placed on ranks side by side, as evenly as possible. Loads are those of the whole dump: it
    does not know which tokens were run together. Batch by batch they are no more even, so the imbalance is a lower
    limit.

    \b
    Examples:
      moefps efficiency mixtral
      moefps efficiency ./model --context 32768 --format json
      moefps efficiency ./model --dump texts.dump --ranks 2,4,8
    """  # noqa: D301 (click wants the character itself)
    from moefps.cli._efficiency_report import report_cost

    for option, given in (("--ranks", ranks), ("--threads", threads)):
        if dump is None and given is not None:
            raise click.UsageError(f"{option} is for --dump")
    numbers = _parse_ranks(ranks)
    sink = open_sink(output, output_format, overwrite=overwrite, inputs=[model] if dump is None else [model, dump])
    # Only now: torch takes seconds to import.
    from moefps.metrics.cost import check_cost_extra, model_cost

    check_cost_extra()
    _keep_quiet()
    with in_words_of_the_command(None, **_WORDS):
        cost = model_cost(model, context=context, top_k=top_k)
        spent: Any = None
        if dump is not None:
            from moefps.metrics.cost_routing import routing_cost

            with progress_on_stderr("counting", show_progress=show_progress, quiet=quiet) as progress:
                spent = routing_cost(dump, cost, ranks=numbers, n_threads=threads, progress=progress or False)
    report_cost(sink, cost, spent)


def _parse_ranks(text: str | None) -> list[int]:
    """Turn ``1,2,4`` into numbers."""
    from moefps.metrics.cost_parallel import DEFAULT_RANKS

    if text is None:
        return list(DEFAULT_RANKS)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part[:7]) > 0 and len(part) < 7 for part in parts):
        raise click.UsageError(f"--ranks: found {text!r}; accepted: whole numbers from 1 on, such as 1,2,4,8")
    return [int(part) for part in parts]


def _keep_quiet() -> None:
    """Keep transformers from talking beside us: what matters comes as an error of ours."""
    from transformers.utils import logging

    logging.set_verbosity_error()

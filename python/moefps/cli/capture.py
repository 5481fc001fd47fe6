"""`moefps capture`: the routing of a model over texts, into a dump."""

from __future__ import annotations

import os
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import format_option, parse_numbers, progress_options
from moefps.cli._outputs import output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import duration, emit_record
from moefps.errors import ArgumentError, CaptureError, CaptureWarning, MoefpsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moefps._typing import ProgressCallback
    from moefps.io import Dump, Texts

_NO_MOE = "the model has no MoE layer"


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("texts", metavar="[TEXTS]", required=False)
@click.option("--pairs", metavar="FILE", help="Instead of TEXTS: what `pairs align` wrote.")
@click.option("--condition", type=click.Choice(["agentic", "assisted"]), help="Which condition of the pairs.")
@output_option("DUMP", "The folder to write.", required=True)
@overwrite_option("Replace the output where it is a dump.")
@click.option("--resume", is_flag=True, help="Go on with a capture that was interrupted, with the same options.")
@click.option("--text-field", metavar="NAME", help="The field that holds the text.  [default: text]")
@click.option("--decoder-field", metavar="NAME", help="The field that an encoder-decoder's decoder reads.")
@click.option("--chat", is_flag=True, help="Apply the chat template to texts, or to the field messages.")
@click.option(
    "--batch-tokens", type=click.IntRange(min=1), default=8192, show_default=True, help="Most positions of a batch."
)
@click.option("--max-length", type=click.IntRange(min=1), metavar="n", help="Cut texts off after n tokens.")
@click.option(
    "--kind",
    type=click.Choice(["probs", "weights", "counts"]),
    help="Fingerprints to add up on the way.  [default: probs, or weights where the model has no full distributions]",
)
@click.option("--logits", is_flag=True, help="Keep all router logits.")
@click.option("--router-vectors", is_flag=True, help="Keep the routers' weight rows.")
@click.option("--hidden-states", metavar="i-j,k", help="Keep the output of these layers, by the model's own numbers.")
@click.option("--layers", metavar="i-j,k", help="Which MoE layers, counted from 0; all when not given.")
@click.option(
    "--router",
    "routers",
    multiple=True,
    metavar="SPEC",
    help="A router that moefps does not know: a module path (* for one part) or class, and which output is what. May "
    "be repeated.",
)
@click.option("--generate", type=click.IntRange(min=1), metavar="n", help="Generate n new tokens, and record them too.")
@click.option("--sample", is_flag=True, help="Generate by sampling; greedy when not given.")
@click.option("--temperature", type=click.FloatRange(0, min_open=True), metavar="t", help="For --sample.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), metavar="p", help="For --sample.")
@click.option("--seed", type=click.IntRange(min=0), metavar="n", help="For --sample.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the model; auto as it is stored.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|cuda:1",
    help="Where it runs; auto takes a GPU where there is one.",
)
@click.option("--device-map", metavar="auto|balanced|...", help="Spread it over devices by accelerate.")
@click.option("--tp", is_flag=True, help="Tensor parallelism, under torchrun.")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit on the hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@format_option
@progress_options
def capture(
    model: str,
    texts: str | None,
    pairs: str | None,
    condition: str | None,
    output: str,
    text_field: str | None,
    decoder_field: str | None,
    chat: bool,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Record which experts MODEL chooses for TEXTS, into a dump.

    MODEL is a folder or a name on the hub. TEXTS is a .txt, a text a line; a .jsonl, .csv or .parquet, whose other
    fields stay as columns of the samples; or `-` for .jsonl or .txt on stdin. Ids and weights are what the model's own
    routers gave; padding is never written. A capture that was killed goes on with --resume.

    With --pairs, every task is a sample, run in one of its two conditions: its tokens stand at the coordinates that
    both conditions share.

    \b
    Examples:
      moefps capture Qwen/Qwen3-30B-A3B texts.jsonl -o texts.dump
      moefps capture ./model prompts.txt -o p.dump --generate 64 --logits
      moefps capture ./model chats.jsonl -o c.dump --chat --device-map auto
      moefps capture ./model t.csv -o t.dump --text-field prompt --resume
      moefps capture ./model --pairs p.json --condition agentic -o agentic.dump
      moefps capture ./arctic t.txt -o a.dump --trust-remote-code \\
        --router "model.layers.*.gate:logits=0,top_k=2,scoring=softmax"

    A SPEC of --router is TARGET:name=value,... with logits=, weights= and ids= (the number of the output that is it),
    scoring=, and top_k= where no output has the ids: they are then the largest logits, and the dump says so. Without
    any, the outputs are (logits, weights, ids).
    """  # noqa: D301 (click wants the character itself)
    arguments = _arguments(options)
    source, given = _samples(texts, pairs, condition, text_field, decoder_field, chat=chat)
    # Only now: torch takes seconds to import.
    from moefps.recording import capture as run
    from moefps.recording import check_extra

    check_extra()
    _keep_quiet()
    words = {**dict.fromkeys(["texts", "samples", "decoder_texts", "pairs"], source), "model": model}
    started, clock = time.perf_counter(), _Clock()
    with (
        _says_how_to_go_on(output),
        in_words_of_the_command(None, **words, **_OPTIONS),
        _no_moe_is_an_error(model),
        progress_on_stderr("capturing", show_progress=show_progress, quiet=quiet) as progress,
    ):
        dump = run(
            model,
            output=output,
            progress=clock.watch(progress),
            **given,
            **arguments,
        )
    # Under torchrun the others have nothing to add.
    if os.environ.get("RANK", "0") == "0":
        _report(dump, output, time.perf_counter() - started, clock.tokens_per_second, output_format)


_OPTIONS = {
    "batch_tokens": "--batch-tokens",
    "chat": "--chat",
    "condition": "--condition",
    "device": "--device",
    "dtype": "--dtype",
    "generate": "--generate",
    "hidden_states": "--hidden-states",
    "max_length": "--max-length",
    "resume": "--resume",
}


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Give the keyword arguments that the Python API takes, and refuse what contradicts itself."""
    sampling = {name: options.pop(name) for name in ("temperature", "top_p")}
    is_sampled, n_new = options.pop("sample"), options.pop("generate")
    for name, value in {**sampling, "seed": options["seed"]}.items():
        if value is not None and not is_sampled:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --sample")
    if is_sampled and n_new is None:
        raise click.UsageError("--sample is for --generate")
    device = options.pop("device")
    use_tp = options.pop("tp")
    if sum([device != "auto", options["device_map"] is not None, use_tp]) > 1:
        raise click.UsageError("--device, --device-map and --tp exclude each other")
    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other: one goes on, the other begins anew")
    return {
        **options,
        "generate": n_new or 0,
        "sampling": {name: value for name, value in sampling.items() if value is not None} if is_sampled else None,
        "device": None if device == "auto" else device,
        "tp_plan": "auto" if use_tp else None,
        "layers": parse_numbers(options["layers"], "--layers"),
        "hidden_states": parse_numbers(options["hidden_states"], "--hidden-states"),
    }


def _samples(
    texts: str | None,
    pairs: str | None,
    condition: str | None,
    text_field: str | None,
    decoder_field: str | None,
    *,
    chat: bool,
) -> tuple[str, dict[str, Any]]:
    """Give the file that the samples come from, and the arguments that say what they are."""
    if (texts is None) == (pairs is None):
        raise click.UsageError("give TEXTS or --pairs, one of them")
    if pairs is None:
        if condition is not None:
            raise click.UsageError("--condition is for --pairs")
        from moefps.io import read_texts

        read = read_texts(str(texts), text_field=text_field, chat=chat)
        decoder_texts = _decoder_texts(read, decoder_field)
        columns = {"texts": read.texts, "samples": read.columns}
        return read.source, {**columns, "decoder_texts": decoder_texts, "chat": chat}
    if condition is None:
        raise click.UsageError("--pairs needs --condition agentic or --condition assisted")
    for option, value in {"--chat": chat, "--text-field": text_field, "--decoder-field": decoder_field}.items():
        if value:
            raise click.UsageError(f"{option} is for TEXTS")
    from moefps.io.pair_tokens import read_pair_tokens

    return pairs, {"pairs": read_pair_tokens(pairs), "condition": condition}


def _decoder_texts(read: Texts, field: str | None) -> Sequence[str] | None:
    """Take another field as what the decoder reads."""
    if field is None:
        return None
    import polars as pl

    if field not in read.columns.columns:
        raise ArgumentError(
            f"{read.source}: has no field {field}, found {', '.join(read.columns.columns)}; --decoder-field names one"
        )
    column = read.columns[field]
    if column.dtype != pl.String or column.null_count():
        raise ArgumentError(f"{read.source}: the field {field} is not a text in every row, as --decoder-field needs")
    return column.to_list()


def _keep_quiet() -> None:
    """Keep transformers from talking beside us: what matters comes as an error or a warning of ours."""
    import logging

    from transformers.utils import logging as of_transformers

    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
    # It announces every try to reach the hub.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


@contextmanager
def _no_moe_is_an_error(model: str) -> Iterator[None]:
    """Stop before anything is written where there is nothing to record."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_NO_MOE, category=CaptureWarning)
        try:
            yield
        except CaptureWarning as warning:
            raise CaptureError(f"{model}: has no MoE layer, so there is no routing to record") from warning


@contextmanager
def _says_how_to_go_on(output: str) -> Iterator[None]:
    """After Ctrl-C or SIGTERM, say that what is written is not lost."""
    from moefps.io.dump import resumable_header

    try:
        yield
    except BaseException as error:
        with suppress(MoefpsError):
            if not isinstance(error, Exception) and resumable_header(output) is not None:
                # The terminal has just printed ^C on this line.
                start = "\n" if sys.stderr.isatty() else ""
                click.echo(f"{start}{output}: is half-written; the same command with --resume goes on", err=True)
        raise


class _Clock:
    """Measures how fast tokens come, from the first batch on: loading a model says nothing about that."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def watch(self, progress: ProgressCallback | None) -> ProgressCallback:
        """Give a callback that measures, and hands on what it is told."""

        def advance(done: int, total: int) -> None:
            now = time.perf_counter(), done
            self._first, self._last = self._first or now, now
            if progress is not None:
                progress(done, total)

        return advance

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens a second; None where too few batches ran to tell."""
        if self._first is None or self._last is None or self._last[1] <= self._first[1]:
            return None
        return (self._last[1] - self._first[1]) / max(self._last[0] - self._first[0], 1e-9)


def _report(dump: Dump, output: str, seconds: float, tokens_per_second: float | None, output_format: str) -> None:
    """Say what was captured, how fast, and where it is."""
    from moefps.cli._dump_report import bytes_on_disk

    record: dict[str, Any] = {
        "output": output,
        "n_samples": dump.n_samples,
        "n_tokens": dump.n_tokens,
        "n_layers": dump.n_layers,
        "n_experts": dump.n_experts,
        "top_k": dump.top_k,
        "arrays": ", ".join(dump.arrays),
        "fingerprint_kind": dump.manifest.fingerprint_kind,
        "bytes": bytes_on_disk(dump),
        "seconds": round(seconds, 3),
        "tokens_per_second": None if tokens_per_second is None else round(tokens_per_second, 1),
    }
    if output_format != "table":
        emit_record(record, output_format)
        return
    from moefps.io.atomic import human_bytes

    speed = "" if tokens_per_second is None else f", {tokens_per_second:,.0f} tokens/s without it"
    click.echo(
        f"{output}: {counted(dump.n_samples, 'sample')}, {counted(dump.n_tokens, 'token')}, "
        f"{human_bytes(record['bytes'])}"
    )
    click.echo(f"  {counted(dump.n_layers, 'layer')} of {counted(dump.n_experts, 'expert')}, top-{dump.top_k}")
    kind = f"fingerprints of kind {dump.manifest.fingerprint_kind}"
    click.echo(f"  holds {record['arrays'].replace('fingerprints', kind)}")
    click.echo(f"  in {duration(seconds)} with loading the model{speed}")

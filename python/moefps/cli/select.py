"""`moefps select`: farthest point sampling of fingerprints or of a matrix of distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import (
    DUMP_OPTIONS,
    GROUND_HELP,
    Metric,
    dump_options,
    format_option,
    load_inputs,
    metric_options,
    progress_options,
)
from moefps.cli._outputs import TABLES, open_sink, output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr
from moefps.errors import ArgumentError

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

    from moefps import Selection, SelectionEvaluation
    from moefps._typing import Float64Array, FloatArray, Progress
    from moefps.cli._outputs import Sink

_METRIC_OPTIONS = ("ground", "positions", "reduce", "layer_weights", "dtype", "normalize", "single_layer")
_OF_COLUMN = "column:"


@dataclass(frozen=True)
class _Request:
    """What the user asked for beside the metric and the output."""

    n_select: int | None
    start: str
    seed: int
    stop_radius: float | None
    distances: str | None
    labels: str | None
    evaluate: bool
    n_random: int | None
    no_typicality: bool
    single_layer: bool
    of_dump: dict[str, Any]
    show_progress: bool | None
    quiet: bool

    @property
    def wants_evaluation(self) -> bool:
        return self.evaluate or self.n_random is not None or (self.labels is not None and self.distances is None)


@dataclass(frozen=True, eq=False)
class _Job:
    """What to select from: fingerprints, or a matrix of distances."""

    array: FloatArray
    is_matrix: bool
    source: str
    names: tuple[str, ...] | None
    labels: npt.NDArray[Any] | None
    metric: dict[str, Any]
    kind: str | None = None
    rows: pl.DataFrame | None = None


@click.command(epilog=GROUND_HELP)
@click.argument("paths", nargs=-1, metavar="[X...]")
@click.option("-m", "--n-select", type=int, metavar="M", help="How many samples to pick.")
@click.option("--stop-radius", type=float, metavar="r", help="Stop when every sample is within r of a pick.")
@click.option(
    "--start",
    default="medoid",
    show_default=True,
    metavar="medoid|farthest|random|i,j,...",
    help="The first pick, or the first picks by index, from 0.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For all that is random.")
@click.option("--distances", metavar="D.npy", help="Select from this [N, N] matrix instead of fingerprints.")
@click.option(
    "--labels",
    metavar="FILE|column:NAME",
    help="A label a sample: .csv with a column label, .txt, or .npy; or a column of the dump's samples.",
)
@click.option("--evaluate", is_flag=True, help="Compare with random selections of the same size.")
@click.option("--n-random", type=click.IntRange(min=1), metavar="n", help="How many random selections.  [default: 100]")
@click.option("--no-typicality", is_flag=True, help="Leave out the column typicality, which takes a while.")
@output_option("FILE", "Write the picks to a .csv, .json or .parquet; .npy: indices only.")
@overwrite_option()
@dump_options
@metric_options
@format_option
@progress_options
@click.pass_context
def select(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    output: str | None,
    overwrite: bool,
    output_format: str,
    **options: Any,
) -> None:
    """Pick the M samples that together show every way the model behaves.

    Each pick is the sample farthest from all picks before it (farthest point sampling), exactly, and without a matrix
    unless you give one. X is a .npy of [N, L, E], or several .npy of [L, E], or a folder or a quoted glob of them, or
    a dump, or `-` for stdin.

    \b
    Columns of the result:
      rank          1 for the first pick
      index         the sample in X, from 0; its name where samples are files
      radius        largest distance of any sample to its nearest pick so far
      cluster_size  samples that have this pick as their nearest
      typicality    percentile of the mean distance to all others: 100 for the
                    most common path through the experts, 0 for the rarest
      and for a dump the samples' own columns, such as id or domain; with
      --window also sample, window_start and n_tokens

    \b
    Examples:
      moefps select X.npy -m 64 -o sel.csv
      moefps select X.npy -m 64 --labels labels.csv --evaluate
      moefps select X.npy --stop-radius 2.5 --format json
      moefps select --distances D.npy -m 64 -o sel.npy
      moefps select traces.dump -m 12 --labels column:domain
      moefps select traces.dump -m 64 --window 32 --stride 8 -o sel.csv
    """  # noqa: D301 (click wants the character itself)
    from moefps.cli._selection_report import report_selection

    metric = Metric(**{name: options.pop(name) for name in Metric.__dataclass_fields__})
    request = _Request(of_dump={name: options.pop(name) for name in DUMP_OPTIONS}, **options)
    _check_use(context, paths, request)
    inputs = [*paths, *(path for path in (request.distances, request.labels) if path is not None)]
    sink: Sink = open_sink(output, output_format, overwrite=overwrite, inputs=inputs, accepted=(*TABLES, "npy"))
    job = _open_job(paths, request, metric)
    if job.kind is not None and output is None and output_format != "table" and not request.quiet:
        # stdout belongs to the rows, and the kind is always said.
        click.echo(f"fingerprints of kind {job.kind}", err=True)
    with in_words_of_the_command(job.names, X=job.source, D=job.source):
        selection = _pick(job, request, metric)
        typicality = None if request.no_typicality else _typicality(job, request)
        evaluation = _evaluate(job, selection, request) if request.wants_evaluation else None
    report_selection(
        sink, selection, typicality, evaluation, names=job.names, labels=job.labels, kind=job.kind, rows=job.rows
    )


def _check_use(context: click.Context, paths: tuple[str, ...], request: _Request) -> None:
    """Refuse options that contradict each other before any file is read."""
    if request.distances is None and not paths:
        raise click.UsageError("no input: give fingerprints, or a matrix with --distances")
    if request.n_select is None and request.stop_radius is None:
        raise click.UsageError("how many picks: give -m, --stop-radius or both")
    if request.n_select is not None and request.n_select < 1:
        raise ArgumentError(f"-m: found {request.n_select}; accepted: at least 1")
    if request.distances is None:
        return
    if paths:
        raise click.UsageError("--distances takes the place of fingerprints, give one of the two")
    if request.wants_evaluation:
        raise click.UsageError("--evaluate needs fingerprints, it does not work on --distances")
    for name in (*_METRIC_OPTIONS, *DUMP_OPTIONS):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} changes nothing about --distances")


def _open_job(paths: tuple[str, ...], request: _Request, metric: Metric) -> _Job:
    from moefps.io.npy import display_name, open_float_npy

    kind = rows = None
    if request.distances is not None:
        array = open_float_npy(request.distances, ndim=(2,), layout="[N, N]")
        names, source, arguments = None, display_name(request.distances), {}
    else:
        with progress_on_stderr("fingerprints", show_progress=request.show_progress, quiet=request.quiet) as progress:
            fingerprints = load_inputs(
                paths, single_layer=request.single_layer, progress=progress or False, **request.of_dump
            )
        array, names, source = fingerprints.array, fingerprints.names, fingerprints.source
        kind, rows = fingerprints.kind, fingerprints.rows
        arguments = metric.arguments()
    n_samples = int(array.shape[0])
    if request.n_select is not None and request.n_select > n_samples:
        raise ArgumentError(f"-m: found {request.n_select:,}; accepted: 1 to {n_samples:,}, the number of samples")
    labels = None if request.labels is None else _labels(request.labels, n_samples, rows, source)
    return _Job(array, request.distances is not None, source, names, labels, arguments, kind, rows)


def _labels(given: str, n_samples: int, rows: pl.DataFrame | None, source: str) -> npt.NDArray[Any]:
    """Read labels from a file, or take a column of the dump's samples."""
    from moefps.io import labels_of_column, read_labels

    if not given.startswith(_OF_COLUMN):
        return read_labels(given, n_samples)
    if rows is None:
        raise click.UsageError(f"--labels {given} names a column of a dump, and {source} is none")
    return labels_of_column(rows, given.removeprefix(_OF_COLUMN), source)


def _pick(job: _Job, request: _Request, metric: Metric) -> Selection:
    import moefps

    with progress_on_stderr("picking", show_progress=request.show_progress, quiet=request.quiet) as progress:
        common: dict[str, Any] = {
            "start": _parse_start(request.start),
            "seed": request.seed,
            "stop_radius": request.stop_radius,
            "progress": progress or False,
        }
        if job.is_matrix:
            return moefps.fps(job.array, request.n_select, n_threads=metric.threads, **common)
        return moefps.select(job.array, request.n_select, **common, **job.metric)


def _parse_start(text: str) -> str | int | list[int]:
    """Turn the text of --start into what the Python API takes."""
    if text in {"medoid", "farthest", "random"}:
        return text
    try:
        picks = [int(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(
            f"--start: found {text!r}; accepted: medoid, farthest, random, or indices such as 5 or 5,17"
        ) from None
    return picks[0] if len(picks) == 1 else picks


def _typicality(job: _Job, request: _Request) -> Float64Array:
    import moefps

    with progress_on_stderr("typicality", show_progress=request.show_progress, quiet=request.quiet) as progress:
        if job.is_matrix:
            return _matrix_typicality(job.array, progress or False)
        return moefps.typicality(job.array, progress=progress or False, **job.metric)


def _matrix_typicality(distances: FloatArray, progress: Progress) -> Float64Array:
    """Give what `moefps.typicality` gives, from the means of the rows of a matrix."""
    import numpy as np

    n_samples = distances.shape[0]
    if n_samples == 1:
        return np.full(1, 100.0)
    means = np.empty(n_samples)
    step = max(1, (1 << 24) // distances[0].nbytes)
    for start in range(0, n_samples, step):
        means[start : start + step] = distances[start : start + step].sum(axis=1, dtype=np.float64)
        if callable(progress):
            progress(min(start + step, n_samples), n_samples)
    ordered = np.sort(means)
    larger = n_samples - np.searchsorted(ordered, means, side="right")
    equal = n_samples - larger - np.searchsorted(ordered, means, side="left") - 1
    return np.asarray(100 * (larger + equal / 2) / (n_samples - 1), dtype=np.float64)


def _evaluate(job: _Job, selection: Selection, request: _Request) -> SelectionEvaluation:
    import moefps

    with progress_on_stderr("random picks", show_progress=request.show_progress, quiet=request.quiet) as progress:
        return moefps.evaluate_selection(
            job.array,
            selection.indices,
            job.labels,
            n_random=request.n_random or 100,
            seed=request.seed,
            progress=progress or False,
            **job.metric,
        )

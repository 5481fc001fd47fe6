"""`moefps distance`: all distances to a .npy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
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
from moefps.cli._outputs import output_option, overwrite_option, refuse_own_input
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import duration, emit_record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from moefps.io import Fingerprints

_HEADER_BYTES = 128
_SAMPLED_VALUES = 4_000_000


@click.command(epilog=GROUND_HELP)
@click.argument("paths", nargs=-1, required=True, metavar="X...")
@output_option("D.npy", "The file to write.", required=True)
@overwrite_option()
@click.option("--condensed", is_flag=True, help="Write only the upper triangle, N(N-1)/2 numbers in SciPy's order.")
@click.option(
    "--cross",
    metavar="Y.npy",
    help="Distances from every sample of X to every sample of Y instead, which may be a dump.",
)
@dump_options
@metric_options
@format_option
@progress_options
def distance(
    paths: tuple[str, ...],
    output: str,
    overwrite: bool,
    condensed: bool,
    cross: str | None,
    single_layer: bool,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
    **others: Any,
) -> None:
    """Write the Wasserstein distances between all samples to D.npy.

    X is a .npy of [N, L, E], or several .npy of [L, E], or a folder or a quoted glob of them, or a dump, or `-` for
    stdin. The result is [N, N], or [N, M] with --cross. The file appears under its name only when it is whole.

    \b
    Examples:
      moefps distance X.npy -o D.npy
      moefps distance samples/ -o D.npy --ground discrete
      moefps distance X.npy -o D.npy --cross Y.npy --dtype float64
      moefps distance traces.dump -o D.npy --kind counts
    """  # noqa: D301 (click wants the character itself)
    from moefps.io import check_destination

    if Path(output).suffix != ".npy":
        raise click.UsageError(f"-o: found {output!r}; accepted: a name that ends in .npy")
    if cross is not None and condensed:
        raise click.UsageError("--cross and --condensed exclude each other")
    refuse_own_input(output, (*paths, *([cross] if cross is not None else [])))
    check_destination(output, overwrite=overwrite)
    of_dump = {name: others.pop(name) for name in DUMP_OPTIONS}
    options = Metric(**others)
    arguments = options.arguments()
    with progress_on_stderr("fingerprints", show_progress=show_progress, quiet=quiet) as progress:
        left, right = _load_both(paths, cross, single_layer, of_dump, progress or False)
    itemsize = 4 if options.dtype == "float32" else 8
    n_values = _n_values(left, right, condensed=condensed)
    check_destination(output, overwrite=overwrite, needed_bytes=n_values * itemsize + _HEADER_BYTES)
    started = time.perf_counter()
    files = {"X": left.source, "Y": right.source if right is not None else ""}
    with (
        in_words_of_the_command(left.names, **files),
        progress_on_stderr("distances", show_progress=show_progress, quiet=quiet) as progress,
    ):
        distances = _compute(left, right, output, arguments, condensed=condensed, progress=progress or False)
    seconds = time.perf_counter() - started
    record = _record(output, distances, seconds, left, options, is_square=right is None and not condensed)
    if output_format == "table":
        _print_record(record)
    else:
        emit_record(record, output_format)


def _load_both(
    paths: tuple[str, ...], cross: str | None, single_layer: bool, of_dump: dict[str, Any], progress: Any
) -> tuple[Fingerprints, Fingerprints | None]:
    """Open both sides; where both are dumps, the second gives the kind of fingerprints of the first."""
    from moefps.io import is_dump

    if cross is None or not is_dump(cross):
        left = load_inputs(paths, single_layer=single_layer, progress=progress, **of_dump)
        return left, None if cross is None else load_inputs((cross,), single_layer=single_layer)
    if len(paths) == 1 and is_dump(paths[0]):
        left = load_inputs(paths, single_layer=single_layer, progress=progress, **of_dump)
        of_dump = {**of_dump, "kind": left.kind}
    else:
        left = load_inputs(paths, single_layer=single_layer)
    return left, load_inputs((cross,), single_layer=False, progress=progress, **of_dump)


def _n_values(left: Fingerprints, right: Fingerprints | None, *, condensed: bool) -> int:
    n_samples = left.n_samples
    if right is not None:
        return n_samples * right.n_samples
    return n_samples * (n_samples - 1) // 2 if condensed else n_samples * n_samples


def _compute(
    left: Fingerprints,
    right: Fingerprints | None,
    output: str,
    arguments: dict[str, Any],
    *,
    condensed: bool,
    progress: Any,
) -> npt.NDArray[np.floating[Any]]:
    import moefps

    if right is not None:
        return moefps.wasserstein_cross(left.array, right.array, out=output, progress=progress, **arguments)
    return moefps.wasserstein_matrix(left.array, out=output, condensed=condensed, progress=progress, **arguments)


def _record(
    output: str,
    distances: npt.NDArray[np.floating[Any]],
    seconds: float,
    left: Fingerprints,
    options: Metric,
    *,
    is_square: bool,
) -> dict[str, Any]:
    """Say what was computed and how long it took."""
    return {
        "output": output,
        "rows": int(distances.shape[0]),
        "columns": int(distances.shape[1]) if distances.ndim == 2 else None,
        "dtype": distances.dtype.name,
        "bytes": int(distances.nbytes) + _HEADER_BYTES,
        "seconds": round(seconds, 6),
        "n_layers": int(left.array.shape[1]),
        "n_experts": int(left.array.shape[2]),
        "ground": options.ground_name,
        "reduce": options.reduce,
        "kind": left.kind,
        **_summary(distances, is_square=is_square),
    }


def _summary(distances: npt.NDArray[np.floating[Any]], *, is_square: bool) -> dict[str, Any]:
    """Give the spread of the distances, of evenly spaced rows where there are very many."""
    import numpy as np

    n_rows = distances.shape[0]
    per_row = distances.shape[1] if distances.ndim == 2 else 1
    n_taken = max(1, min(n_rows, _SAMPLED_VALUES // per_row))
    rows = np.unique(np.linspace(0, n_rows - 1, n_taken).astype(np.int64))
    taken = np.asarray(distances[rows], dtype=np.float64)
    if is_square:
        # A sample's distance to itself says nothing.
        taken = taken[np.arange(per_row) != rows[:, np.newaxis]]
    return {
        "smallest": float(taken.min()),
        "median": float(np.median(taken)),
        "mean": float(taken.mean()),
        "largest": float(taken.max()),
        "is_sampled": len(rows) < n_rows,
    }


def _print_record(record: dict[str, Any]) -> None:
    from moefps.io.atomic import human_bytes

    shape = f"{record['rows']:,}" + (f" x {record['columns']:,}" if record["columns"] else "")
    click.echo(
        f"{record['output']}: {shape} distances, {record['dtype']}, {human_bytes(record['bytes'])}, "
        f"in {duration(record['seconds'])}"
    )
    click.echo(
        f"  ground {record['ground']}, {record['reduce']} over {counted(record['n_layers'], 'layer')} of "
        f"{counted(record['n_experts'], 'expert')}"
    )
    if record["kind"] is not None:
        click.echo(f"  fingerprints of kind {record['kind']}")
    sampled = " (of evenly spaced rows)" if record["is_sampled"] else ""
    click.echo(
        f"  smallest {record['smallest']:.4g}, median {record['median']:.4g}, mean {record['mean']:.4g}, "
        f"largest {record['largest']:.4g}{sampled}"
    )

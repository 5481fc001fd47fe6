"""`moefps info`: what is in a file, what is wrong with it, how long a matrix would take."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._findings import emit_rows, print_findings
from moefps.cli._options import format_option, load_inputs, progress_options, single_layer_option, threads_option
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import SHORTEST, duration, emit_record
from moefps.errors import DataError

if TYPE_CHECKING:
    from moefps._typing import FloatArray
    from moefps.io import Fingerprints, Inspection

_SECONDS_TO_MEASURE = 0.25
_FIRST_ROWS = 64


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="X...")
@threads_option
@single_layer_option
@format_option
@progress_options
def info(
    paths: tuple[str, ...],
    threads: int | None,
    single_layer: bool,
    output_format: str,
    show_progress: bool | None,
    quiet: bool,
) -> None:
    """Say what is in X, what is wrong with it, and how long a matrix would take.

    X is a .npy of [N, L, E], or several .npy of [L, E], or a folder or a quoted glob of them, or `-` for stdin. All
    problems are found in one pass. The exit code is 0 where a distance would be computed, and 2 where the data would
    be refused. The time is measured on this machine, on a few rows, and scaled up.

    X may also be a dump: then its layers, arrays and sizes are said, all values are read and checked, and what is odd
    is counted. A half-written dump is an error that says how far it is and how to go on.

    \b
    Examples:
      moefps info X.npy
      moefps info samples/ --format json
      moefps info traces.dump
    """  # noqa: D301 (click wants the character itself)
    from moefps.io import inspect_fingerprints, is_dump

    if len(paths) == 1 and is_dump(paths[0]):
        if threads is not None or single_layer:
            raise click.UsageError("--threads and --single-layer are for fingerprints, not for a dump")
        from moefps.cli._dump_report import report_dump

        report_dump(paths[0], output_format, show_progress=show_progress, quiet=quiet)
        return
    fingerprints = load_inputs(paths, single_layer=single_layer)
    with progress_on_stderr("reading", show_progress=show_progress, quiet=quiet) as progress:
        inspection = inspect_fingerprints(fingerprints.array, progress=progress)
    estimate = _estimate(fingerprints.array, threads, is_sound=not inspection.has_problems)
    facts = _facts(fingerprints, inspection)
    if output_format == "table":
        _print_report(facts, inspection, estimate)
    elif output_format == "json":
        findings = [asdict(finding) for finding in inspection.findings]
        emit_record({**facts, "findings": findings, "matrix": estimate}, "json")
    else:
        more = [("matrix", name, value) for name, value in (estimate or {}).items()]
        emit_rows(facts, inspection.findings, more, output_format)
    if inspection.has_problems:
        n_problems = sum(finding.is_problem for finding in inspection.findings)
        raise DataError(f"{fingerprints.source}: {counted(n_problems, 'kind')} of problem found")


def _facts(fingerprints: Fingerprints, inspection: Inspection) -> dict[str, Any]:
    import numpy as np

    array = fingerprints.array
    is_finite = bool(np.isfinite(inspection.smallest_row_sum))
    return {
        "source": fingerprints.source,
        "n_samples": int(array.shape[0]),
        "n_layers": int(array.shape[1]),
        "n_experts": int(array.shape[2]),
        "dtype": array.dtype.name,
        "order": "Fortran" if array.flags.f_contiguous and not array.flags.c_contiguous else "C",
        "bytes": int(array.nbytes),
        "smallest_row_sum": inspection.smallest_row_sum if is_finite else None,
        "largest_row_sum": inspection.largest_row_sum if is_finite else None,
    }


def _estimate(array: FloatArray, threads: int | None, *, is_sound: bool) -> dict[str, Any] | None:
    """Measure the kernel on more and more rows until that takes long enough, then scale up."""
    import numpy as np

    import moefps
    from moefps.io import planted_fingerprints

    n_samples, n_layers, n_experts = array.shape
    if n_samples < 2 or n_experts < 2:
        return None
    n_rows = min(n_samples, _FIRST_ROWS)
    while True:
        if is_sound:
            rows = array[np.linspace(0, n_samples - 1, n_rows).astype(np.int64)]
        else:
            # The kernels refuse such data, and their speed does not depend on the values.
            rows = planted_fingerprints(n_rows, n_layers, n_experts, n_behaviours=1, rarest=1).array
        started = time.perf_counter()
        moefps.wasserstein_matrix(rows, n_threads=threads)
        seconds = time.perf_counter() - started
        if n_rows == n_samples or seconds >= _SECONDS_TO_MEASURE:
            break
        n_rows = min(n_samples, 2 * n_rows)
    return {
        "seconds": seconds * (n_samples / n_rows) ** 2,
        "is_measured": n_rows == n_samples,
        "threads": threads,
        "bytes_float32": n_samples * n_samples * 4,
        "bytes_float32_condensed": n_samples * (n_samples - 1) * 2,
    }


def _print_report(facts: dict[str, Any], inspection: Inspection, estimate: dict[str, Any] | None) -> None:
    from moefps.io.atomic import human_bytes

    sizes = ", ".join(
        (
            counted(facts["n_samples"], "sample"),
            counted(facts["n_layers"], "layer"),
            counted(facts["n_experts"], "expert"),
        )
    )
    click.echo(f"{facts['source']}: fingerprints of {sizes}")
    click.echo(f"  {facts['dtype']}, {facts['order']} order, {human_bytes(facts['bytes'])}")
    if facts["smallest_row_sum"] is not None:
        click.echo(f"  row sums from {facts['smallest_row_sum']:.7g} to {facts['largest_row_sum']:.7g}")
    print_findings(inspection.findings)
    if estimate is not None:
        threads = counted(estimate["threads"], "thread") if estimate["threads"] else "all cores"
        about = "" if estimate["seconds"] < SHORTEST else "about "
        click.echo(
            f"distance matrix: {about}{duration(estimate['seconds'])} on this machine with {threads}, "
            f"{human_bytes(estimate['bytes_float32'])} in float32"
        )
        if not estimate["is_measured"]:
            click.echo("  (the time was measured on some of the rows and scaled up)")

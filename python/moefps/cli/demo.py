"""`moefps demo`: the whole way from fingerprints to a selection, on captured data that come with moefps."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from shutil import get_terminal_size
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._options import progress_options
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import duration, print_table
from moefps.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    import numpy.typing as npt

    from moefps import Selection, SelectionEvaluation
    from moefps._typing import IndexArray, ProgressCallback
    from moefps.io.bundled import Bundled

N_PICKS = 12
_N_ORDERS = 2000
_WIDTH = 78
_SCIPY_SECONDS = 0.3
_TIMED_SECONDS = 0.1
_SAVED = ("X.npy", "labels.csv", "source.json")


@click.command()
@click.option("--save", metavar="DIR", help=f"Keep the data: {', '.join(_SAVED)} in this folder.")
@click.option("--overwrite", is_flag=True, help="Replace the files in DIR where they exist.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the random picks.")
@progress_options
def demo(save: str | None, overwrite: bool, seed: int, show_progress: bool | None, quiet: bool) -> None:
    """Show it all on captured data that come with moefps.

    The data are the routing of a small trained model over 320 texts of eight domains, which it did not see in
    training. The demo computes all distances, picks samples, and counts how many domains the picks show, beside
    random picks. It takes a few seconds.

    \b
    Examples:
      moefps demo
      moefps demo --save demo/
    """  # noqa: D301 (click wants the character itself)
    import moefps
    from moefps.io.bundled import bundled_fingerprints

    if save is not None:
        _check_folder(save, overwrite=overwrite)
    bundled = bundled_fingerprints()
    X = bundled.array
    _print_data(bundled)
    distances, matrix_seconds = _timed(lambda: moefps.wasserstein_matrix(X))
    selection, select_seconds = _timed(lambda: moefps.select(X, N_PICKS))
    _print_timing(X, matrix_seconds, select_seconds)
    with progress_on_stderr("random picks", show_progress=show_progress, quiet=quiet) as progress:
        evaluations = _evaluate_each(bundled, selection, seed, progress)
    _print_picks(bundled, selection, evaluations, moefps.typicality(X))
    _print_coverage(bundled, distances, selection, seed)
    _print_next(bundled, save, overwrite=overwrite)


def _print_data(bundled: Bundled) -> None:
    """Say what the data are, before any number."""
    n_samples, n_layers, n_experts = bundled.array.shape
    domains = list(dict.fromkeys(bundled.domains.tolist()))
    click.echo(f"captured data: {n_samples} held-out texts of {len(domains)} domains, through a small trained model")
    click.echo(
        f"{counted(n_samples, 'sample')}, {counted(n_layers, 'layer')}, {counted(n_experts, 'expert')}; "
        f"{counted(int(bundled.n_tokens.sum()), 'token')}; fingerprints of kind {bundled.kind}"
    )
    click.echo(_wrapped(f"{n_samples // len(domains)} texts of each domain: {', '.join(domains)}") + "\n")


def _wrapped(text: str) -> str:
    from textwrap import fill

    return fill(text, _WIDTH, subsequent_indent="  ")


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Give a result, and the median time of it: once takes so little that a single time says nothing."""
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - began < _TIMED_SECONDS:
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return result, median(seconds)


def _print_timing(X: npt.NDArray[np.float32], matrix_seconds: float, select_seconds: float) -> None:
    n_pairs = len(X) * (len(X) - 1) // 2
    click.echo(f"all {n_pairs:,} distances: {_short_duration(matrix_seconds)} (median of many runs)")
    scipy_seconds = _scipy_seconds_a_pair(X)
    if scipy_seconds is not None:
        ratio = float(f"{scipy_seconds * n_pairs / matrix_seconds:.2g}")
        click.echo(
            f"  the same in a loop over scipy.stats.wasserstein_distance: about {duration(scipy_seconds * n_pairs)}\n"
            f"  ({ratio:,.0f}x, scaled up from some pairs)"
        )
    click.echo(f"{N_PICKS} picks without a matrix: {_short_duration(select_seconds)}\n")


def _short_duration(seconds: float) -> str:
    """Give a time that may be a fraction of a millisecond, in two digits."""
    return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else duration(seconds)


def _scipy_seconds_a_pair(X: npt.NDArray[np.float32]) -> float | None:
    """Time the loop that people write, for a short while; None where SciPy is not installed."""
    try:
        wasserstein_distance = import_module("scipy.stats").wasserstein_distance
    except ImportError:
        return None
    n_samples, n_layers, n_experts = X.shape
    positions = list(range(n_experts))
    n_done = 0
    started = time.perf_counter()
    while time.perf_counter() - started < _SCIPY_SECONDS:
        a, b = X[n_done % n_samples], X[(n_done + 1) % n_samples]
        for layer in range(n_layers):
            wasserstein_distance(positions, positions, a[layer], b[layer])
        n_done += 1
    return (time.perf_counter() - started) / n_done


def _evaluate_each(
    bundled: Bundled, selection: Selection, seed: int, progress: ProgressCallback | None
) -> list[SelectionEvaluation]:
    """Set the first pick, the first two and so on beside as many random ones."""
    import moefps

    n_picks = len(selection.indices)
    evaluations = []
    for n_first in range(1, n_picks + 1):
        picks = selection.indices[:n_first]
        evaluations.append(moefps.evaluate_selection(bundled.array, picks, bundled.domains, seed=seed))
        if progress is not None:
            progress(n_first, n_picks)
    return evaluations


def _print_picks(
    bundled: Bundled,
    selection: Selection,
    evaluations: list[SelectionEvaluation],
    typicality: npt.NDArray[np.float64],
) -> None:
    """Show what every pick adds, and what as many random picks have by then."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from moefps.cli._selection_report import summary_lines, typicality_word

    columns = ("pick", "sample", "domain", "domains\nseen", "random\npicks", "radius", "random\npicks", "typicality")
    shown = [i for i, name in enumerate(columns) if not _is_narrow() or name in {"pick", "domain", "domains\nseen"}]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i in shown:
        table.add_column(columns[i], justify="left" if columns[i] == "domain" else "right", no_wrap=True)
    seen: set[str] = set()
    for rank, (index, evaluation) in enumerate(zip(selection.indices.tolist(), evaluations, strict=True), start=1):
        domain = str(bundled.domains[index])
        is_new = domain not in seen
        seen.add(domain)
        random = evaluation.random_labels_covered
        cells = (
            str(rank),
            str(index),
            domain,
            f"{'+ ' if is_new else ''}{len(seen)} of {evaluation.n_labels}",
            "" if random is None else f"{random.mean:.1f}",
            f"{evaluation.covering_radius:.2f}",
            f"{evaluation.random_covering_radius.mean:.2f}",
            f"{typicality[index]:.0f} {typicality_word(typicality[index]):>6}",
        )
        table.add_row(*(cells[i] for i in shown))
    print_table(table)
    click.echo("")
    for line in summary_lines(selection, evaluations[-1]):
        click.echo(line)


def _is_narrow() -> bool:
    """Whether stdout is a terminal that the whole table does not fit."""
    return sys.stdout.isatty() and get_terminal_size().columns < _WIDTH


def _print_coverage(bundled: Bundled, distances: npt.NDArray[np.float32], selection: Selection, seed: int) -> None:
    """Say after how many picks every domain was seen, beside random orders and every other first pick."""
    import numpy as np

    import moefps

    labels = np.unique(bundled.domains, return_inverse=True)[1]
    covered = picks_until_covered(labels, selection.indices)
    if covered is None:
        click.echo(f"\n{counted(len(selection.indices), 'pick')} have not seen every domain")
    else:
        click.echo(f"\nevery domain seen after {counted(covered, 'pick')}")
    rng = np.random.default_rng(seed)
    at_random = (picks_until_covered(labels, rng.permutation(len(labels))) for _ in range(_N_ORDERS))
    click.echo(f"  random picks: after {_mean_and_range(at_random, f'{_N_ORDERS:,} orders')}")
    # The default start is one of many: the others show how much of the result is its luck.
    others = (
        picks_until_covered(labels, moefps.fps(distances, len(labels), start=first).indices)
        for first in range(len(labels))
    )
    click.echo(f"  farthest picks from another first one: after {_mean_and_range(others, f'all {len(labels)}')}")
    nearest = np.where(np.eye(len(labels), dtype=bool), np.inf, distances).argmin(axis=1)
    share = 100 * float((labels[nearest] == labels).mean())
    click.echo(f"{share:.1f} % of samples have one of their own domain as their nearest")


def picks_until_covered(labels: IndexArray, order: IndexArray) -> int | None:
    """Count the picks until every label was seen; None where that never happens."""
    import numpy as np

    _, first = np.unique(labels[order], return_index=True)
    return int(first.max()) + 1 if len(first) == len(np.unique(labels)) else None


def _mean_and_range(counts: Iterable[int | None], of_what: str) -> str:
    import numpy as np

    values = np.array([float(value) for value in counts if value is not None])
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{values.mean():.1f} (95 % of {of_what}: {low:.0f} to {high:.0f})"


def _check_folder(save: str, *, overwrite: bool) -> None:
    """Make the folder, and refuse to replace what it holds."""
    from moefps.io import check_destination

    folder = Path(save)
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise FileError(f"{save}: the folder {folder.parent} does not exist") from error
    except FileExistsError as error:
        raise FileError(f"{save}: is a file, expected a folder") from error
    except OSError as error:
        raise FileError(f"{save}: cannot be made: {(error.strerror or str(error)).lower()}") from error
    for name in _SAVED:
        check_destination(folder / name, overwrite=overwrite)


def _print_next(bundled: Bundled, save: str | None, *, overwrite: bool) -> None:
    click.echo("\nnext:")
    if save is None:
        click.echo("  moefps demo --save demo      keep this data, to try the commands on it")
        click.echo("  moefps capture MODEL TEXTS   the routing of a model of your own")
        click.echo("  moefps select X.npy -m 64    the same for fingerprints you have, [N, L, E]")
        return
    folder = Path(save)
    _save(bundled, folder, overwrite=overwrite)
    for command in (
        f"info {folder / 'X.npy'}",
        f"distance {folder / 'X.npy'} -o {folder / 'D.npy'}",
        f"select {folder / 'X.npy'} -m {N_PICKS} --labels {folder / 'labels.csv'} --evaluate",
    ):
        click.echo(f"  moefps {command}")


def _save(bundled: Bundled, folder: Path, *, overwrite: bool) -> None:
    """Write the data as the other commands take them, and what captured them."""
    import json

    import numpy as np
    import polars as pl

    from moefps.io import atomic_file, write_table

    numbers, labels, source = (folder / name for name in _SAVED)
    with atomic_file(numbers, overwrite=overwrite) as file:
        np.save(file, bundled.array, allow_pickle=False)
    columns = {"id": bundled.ids, "label": bundled.domains, "group": bundled.groups, "n_tokens": bundled.n_tokens}
    frame = pl.DataFrame({"sample": range(len(bundled.ids)), **{name: v.tolist() for name, v in columns.items()}})
    write_table(frame, labels, overwrite=overwrite)
    with atomic_file(source, overwrite=overwrite) as file:
        file.write((json.dumps(bundled.source, indent=2) + "\n").encode())

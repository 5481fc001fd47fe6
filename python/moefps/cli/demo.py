"""`moefps demo`: the whole way from fingerprints to a selection, on data made on the spot."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moefps.cli._options import progress_options
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import count, duration, print_table
from moefps.errors import FileError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from moefps import Selection, SelectionEvaluation
    from moefps._typing import IndexArray
    from moefps.io import Planted

N_PICKS = 20
_SCIPY_SECONDS = 0.3
_N_ORDERS = 200


@click.command()
@click.option("--save", metavar="DIR", help="Keep the data: X.npy and labels.csv in this folder.")
@click.option("--overwrite", is_flag=True, help="Replace the files in DIR where they exist.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the planted data.")
@progress_options
def demo(save: str | None, overwrite: bool, seed: int, show_progress: bool | None, quiet: bool) -> None:
    """Show it all on data made on the spot.

    The data are planted: 2,000 samples of 12 behaviours, the rarest with 3 samples. The demo computes all distances,
    picks samples, and counts how many behaviours the picks show, beside random picks. It takes some seconds.

    \b
    Examples:
      moefps demo
      moefps demo --save planted/
    """  # noqa: D301 (click wants the character itself)
    import moefps
    from moefps.io import planted_fingerprints

    if save is not None:
        _check_folder(save, overwrite=overwrite)
    planted = planted_fingerprints(seed=seed)
    X = planted.array
    n_samples, n_layers, n_experts = X.shape
    click.echo("planted data, made on the spot: no captured data set is bundled yet")
    click.echo(
        f"{count(n_samples, 'sample')}, {count(n_layers, 'layer')}, {count(n_experts, 'expert')};\n"
        f"{len(planted.sizes)} behaviours of {', '.join(str(size) for size in planted.sizes)} samples\n"
    )
    with progress_on_stderr("distances", show_progress=show_progress, quiet=quiet) as progress:
        started = time.perf_counter()
        moefps.wasserstein_matrix(X, progress=progress or False)
        matrix_seconds = time.perf_counter() - started
    with progress_on_stderr("picking", show_progress=show_progress, quiet=quiet) as progress:
        started = time.perf_counter()
        selection = moefps.select(X, N_PICKS, progress=progress or False)
        select_seconds = time.perf_counter() - started
    with progress_on_stderr("random picks", show_progress=show_progress, quiet=quiet) as progress:
        evaluation = moefps.evaluate_selection(
            X, selection.indices, planted.labels, seed=seed, progress=progress or False
        )
    typicality = moefps.typicality(X)
    _print_timing(planted, matrix_seconds, select_seconds)
    _print_picks(planted, selection, evaluation, typicality, seed)
    _print_next(planted, save, overwrite=overwrite)


def _print_timing(planted: Planted, matrix_seconds: float, select_seconds: float) -> None:
    n_samples = len(planted.labels)
    n_pairs = n_samples * (n_samples - 1) // 2
    click.echo(f"all {n_pairs:,} distances: {duration(matrix_seconds)}")
    scipy_seconds = _scipy_seconds_a_pair(planted.array)
    if scipy_seconds is not None:
        ratio = scipy_seconds * n_pairs / matrix_seconds
        click.echo(
            f"  the same in a loop over scipy.stats.wasserstein_distance: about {duration(scipy_seconds * n_pairs)}\n"
            f"  ({ratio:,.0f}x, scaled up from some pairs)"
        )
    click.echo(f"{N_PICKS} picks without a matrix: {duration(select_seconds)}\n")


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


def _print_picks(
    planted: Planted,
    selection: Selection,
    evaluation: SelectionEvaluation,
    typicality: npt.NDArray[np.float64],
    seed: int,
) -> None:
    """Show how soon the picks have seen every behaviour, and how late random ones."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from moefps.cli._selection_report import summary_lines, typicality_word

    n_behaviours = len(planted.sizes)
    covered = picks_until_covered(planted.labels, selection.indices)
    random = random_picks_until_covered(planted.labels, seed)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("pick", "sample", "behaviour", "its samples", "seen so far", "radius", "typicality"):
        table.add_column(column, justify="right", no_wrap=True)
    seen: set[int] = set()
    for rank, index in enumerate(selection.indices, start=1):
        label = int(planted.labels[index])
        is_new = label not in seen
        seen.add(label)
        table.add_row(
            str(rank),
            str(index),
            str(label),
            str(planted.sizes[label]),
            f"{'+ ' if is_new else ''}{len(seen)} of {n_behaviours}",
            f"{selection.radii[rank - 1]:.3g}",
            f"{typicality[index]:.0f} {typicality_word(typicality[index]):>6}",
        )
    print_table(table)
    click.echo("")
    for line in summary_lines(selection, evaluation):
        click.echo(line)
    mean, low, high = random.mean(), *_quantiles(random)
    if covered is None:
        click.echo(f"{len(selection.indices)} picks have not seen every behaviour")
    else:
        click.echo(
            f"every behaviour seen after {count(covered, 'pick')}; picked at random it takes {mean:,.0f}\n"
            f"(95 % of {_N_ORDERS} tries {low:,.0f} to {high:,.0f})"
        )


def picks_until_covered(labels: IndexArray, order: IndexArray) -> int | None:
    """Count the picks until every label was seen; None where that never happens."""
    import numpy as np

    _, first = np.unique(labels[order], return_index=True)
    return int(first.max()) + 1 if len(first) == len(np.unique(labels)) else None


def random_picks_until_covered(labels: IndexArray, seed: int) -> npt.NDArray[np.float64]:
    """Count the same for random orders of all samples."""
    import numpy as np

    rng = np.random.default_rng(seed)
    counts = [picks_until_covered(labels, rng.permutation(len(labels))) for _ in range(_N_ORDERS)]
    return np.array(counts, dtype=np.float64)


def _quantiles(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    import numpy as np

    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


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
    for name in ("X.npy", "labels.csv"):
        check_destination(folder / name, overwrite=overwrite)


def _print_next(planted: Planted, save: str | None, *, overwrite: bool) -> None:
    click.echo("\nnext:")
    if save is None:
        click.echo("  moefps demo --save planted     keep this data, to try the commands on it")
        click.echo("  moefps select X.npy -m 64      the same for fingerprints of your own, [N, L, E]")
        return
    import numpy as np
    import polars as pl

    from moefps.io import atomic_file, write_table

    folder = Path(save)
    with atomic_file(folder / "X.npy", overwrite=overwrite) as file:
        np.save(file, planted.array, allow_pickle=False)
    frame = pl.DataFrame({"sample": np.arange(len(planted.labels)), "label": planted.labels})
    write_table(frame, folder / "labels.csv", overwrite=overwrite)
    for command in (
        f"info {folder / 'X.npy'}",
        f"distance {folder / 'X.npy'} -o {folder / 'D.npy'}",
        f"select {folder / 'X.npy'} -m {N_PICKS} --labels {folder / 'labels.csv'} --evaluate",
    ):
        click.echo(f"  moefps {command}")

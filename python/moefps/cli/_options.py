"""Options that several commands share, and what they mean for the Python API."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from moefps._typing import Progress
    from moefps.io import Fingerprints

__all__ = [
    "DUMP_OPTIONS",
    "GROUND_HELP",
    "Metric",
    "dump_options",
    "format_option",
    "load_inputs",
    "metric_options",
    "parse_numbers",
    "progress_options",
]

Command = TypeVar("Command", bound="Callable[..., Any]")

DUMP_OPTIONS = ("kind", "window", "stride", "drop_empty")
"""What `dump_options` adds, as `load_inputs` takes it."""

GROUND_HELP = """
A script that hands two rows to scipy.stats.wasserstein_distance as they are has computed `--ground values`; one that
hands over positions and weights has computed `--ground index`. `index` depends on how experts are numbered, which
training leaves arbitrary; `--ground discrete` treats all experts as equally far and does not.
"""


@dataclass(frozen=True)
class Metric:
    """The options that say which distance is meant, as the user gave them."""

    ground: str | None
    positions: str | None
    reduce: str
    layer_weights: str | None
    dtype: str
    normalize: bool
    threads: int | None

    @property
    def ground_name(self) -> str:
        """What to call the ground metric in a report."""
        return f"positions {self.positions}" if self.positions else self.ground or "index"

    def arguments(self) -> dict[str, Any]:
        """Give the keyword arguments that the Python API takes, with the named files read."""
        from moefps.io import read_numbers

        ground: str | npt.NDArray[Any] = self.ground or "index"
        if self.positions is not None:
            if self.ground is not None:
                raise click.UsageError("--ground and --positions exclude each other")
            ground = read_numbers(self.positions, ndim=(1, 2), layout="[E] or [L, E]")
        weights = None
        if self.layer_weights is not None:
            weights = read_numbers(self.layer_weights, ndim=(1,), layout="[L]")
        return {
            "ground": ground,
            "reduce": self.reduce,
            "layer_weights": weights,
            "dtype": self.dtype,
            "normalize": self.normalize,
            "n_threads": self.threads,
        }


def metric_options(command: Command) -> Command:
    """Add the options of `Metric`."""
    options = (
        click.option(
            "--ground",
            type=click.Choice(["index", "values", "discrete"]),
            help="How far apart experts are: as their numbers are (index, the default); not at all, only the sorted "
            "values of rows are compared (values); all equally far (discrete).",
        ),
        click.option(
            "--positions",
            metavar="P.npy",
            help="Experts at these positions on a line, [E] or [L, E], instead of --ground.",
        ),
        click.option(
            "--reduce",
            type=click.Choice(["sum", "mean"]),
            default="sum",
            show_default=True,
            help="How layers are put together.",
        ),
        click.option("--layer-weights", metavar="W.npy", help="A weight for every layer, [L]."),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "float64"]),
            default="float32",
            show_default=True,
            help="Precision of the distances.",
        ),
        click.option("--normalize", is_flag=True, help="Divide rows by their sum instead of refusing them."),
        threads_option,
        single_layer_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def threads_option(command: Command) -> Command:
    """Add --threads."""
    return click.option(
        "--threads", type=click.IntRange(min=1), metavar="n", help="Threads to use; all cores when not given."
    )(command)


def single_layer_option(command: Command) -> Command:
    """Add --single-layer."""
    return click.option(
        "--single-layer", is_flag=True, help="Take a 2-D file as [N, E], one layer (and files of [E] as samples)."
    )(command)


def format_option(command: Command) -> Command:
    """Add --format."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(["table", "json", "csv", "parquet"]),
        default="table",
        show_default=True,
        help="How results are written.",
    )(command)


def progress_options(command: Command) -> Command:
    """Add --progress, --no-progress and --quiet."""
    command = click.option(
        "-q", "--quiet", is_flag=True, help="Show neither progress nor warnings, only results and errors."
    )(command)
    return click.option(
        "--progress/--no-progress",
        "show_progress",
        default=None,
        help="Show progress on stderr; on by default where that is a terminal.",
    )(command)


def dump_options(command: Command) -> Command:
    """Add the options that say which fingerprints of a dump are meant."""
    options = (
        click.option(
            "--kind",
            type=click.Choice(["probs", "weights", "counts"]),
            help="Fingerprints of a dump: the mean of the routers' full distributions (probs), of the weights divided "
            "by their sum (weights), or shares of assignments (counts).  [default: what the dump holds, else weights]",
        ),
        click.option(
            "--window",
            type=click.IntRange(min=1),
            metavar="n",
            help="A fingerprint for every n tokens of a dump's samples, and one for each sample shorter than that.",
        ),
        click.option(
            "--stride",
            type=click.IntRange(min=1),
            metavar="n",
            help="Tokens from one window to the next.  [default: n]",
        ),
        click.option("--drop-empty", is_flag=True, help="Leave out samples without a filled slot in some layer."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parse_numbers(text: str | None, option: str) -> list[int] | None:
    """Turn numbers and ranges such as ``0-3,7`` into a list.

    Examples
    --------
    >>> parse_numbers("0-3,7", "--layers")
    [0, 1, 2, 3, 7]
    """
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isascii() and end.isdigit() and len(end) < 7 for end in ends):
            raise click.UsageError(f"{option}: found {text!r}; accepted: numbers and ranges such as 0-3,7")
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise click.UsageError(f"{option}: found {part.strip()!r}, which goes down; accepted: such as 0-3")
        numbers.extend(range(first, last + 1))
    return numbers


def load_inputs(
    paths: tuple[str, ...],
    *,
    single_layer: bool,
    kind: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    drop_empty: bool = False,
    progress: Progress = False,
) -> Fingerprints:
    """Open the fingerprints that the command was given."""
    from moefps.cli._messages import in_words_of_the_command
    from moefps.io import load_fingerprints

    with in_words_of_the_command(None):
        found = load_fingerprints(
            paths,
            single_layer=single_layer,
            kind=kind,
            window=window,
            stride=stride,
            drop_empty=drop_empty,
            progress=progress,
        )
    if found.n_dropped:
        warnings.warn(
            f"{found.source}: left out {found.n_dropped:,} of its samples or windows, which have no fingerprint",
            UserWarning,
            stacklevel=2,
        )
    return found

"""Segment metrics (arXiv 2505.16056): how well few experts serve a stretch of text, by windows and by a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.kernels import SegmentCounts, count_segments
from moefps.metrics.arguments import check_layers
from moefps.metrics.dump_rows import layer_sizes, said_of_the_dump
from moefps.metrics.families.expressions import NO_TOKEN
from moefps.metrics.families.segments import NO_WINDOW
from moefps.metrics.reduction import MOST_SLOTS, find_follows, layer_view, token_pieces

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray, Progress
    from moefps.io import Dump

__all__ = ["SegmentMetrics", "count_dump_segments", "segment_columns", "segment_metrics", "tabulate_segments"]

NOT_COUNTED = "windows were not counted by expert"
NO_CACHE = "no caches were followed"
NEVER_ACTIVE = "the expert is active in no window"


@dataclass(frozen=True, eq=False)
class SegmentMetrics:
    """Segment metrics of a dump.

    Attributes
    ----------
    layers : polars.DataFrame
        A row a layer: ``layer``, ``segment_routing_best_performance`` (SRP, over all of the layer's experts with one
        alpha), ``alpha`` (the lowest one that gives it), ``segment_size_ratio``, ``windows``,
        ``segment_cache_hit_rate`` (SCH), ``cache_size``, ``hits``, ``activations``; ``reason`` (why there is no SRP)
        and ``cache_reason`` (why there is no SCH).
    experts : polars.DataFrame
        A row an expert: ``layer``, ``expert``, ``segment_routing_best_performance``, ``alpha``,
        ``segment_size_ratio``, each by the expert's own windows and its own best alpha, and ``reason``.
    counts : SegmentCounts
        What they are made of; those of several traces can be added up.
    """

    layers: pl.DataFrame
    experts: pl.DataFrame
    counts: SegmentCounts


def segment_metrics(
    dump: Dump,
    *,
    window: int = 16,
    rho: float = 2.0,
    layers: Sequence[int] | int | None = None,
    n_threads: int | None = None,
    progress: Progress = False,
) -> SegmentMetrics:
    """Compute the segment metrics of a dump.

    Neighbours are rows of one sample and stack whose position differs by 1; a token without a filled slot in a layer
    parts its neighbours there. f[e,p] is in how many of the m tokens of window p expert e is active. To predict that e
    is active throughout the windows where f ≥ a has F1(a) = 2 Σ_{f≥a} f / (m·#{f≥a} + Σ f), of which the segment
    routing best performance (SRP) is the largest over a = 1..m. The segment cache hit rate (SCH) is the share of
    activations found in a cache that looks as far ahead; see `moefps.kernels.count_segments`.

    Parameters
    ----------
    dump : Dump
        The dump; its ids are read once, in order, and nothing is loaded whole.
    window : int
        Tokens of a window, m.
    rho : float
        Size of a layer's cache: ``rho * k`` experts, rounded, a half upward.
    layers : sequence of int, optional
        Which layers, 0..L-1; all when not given.
    n_threads : int, optional
        All cores by default. The result does not depend on it.
    progress : bool or callable
        True shows a bar; a callable gets ``(done, total)``.

    Returns
    -------
    SegmentMetrics

    Raises
    ------
    ArgumentError
        `window`, `rho`, `layers` or `n_threads` is not accepted.
    DataError
        An id is no expert's; the message names the file and the row.
    DumpError
        The dump has no layers, or the tokens' positions are not what they must be.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from moefps.io.dump import write_dump
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> ids = np.array([[[0, 1]], [[0, 2]], [[0, 1]], [[0, 2]]])
    >>> found = segment_metrics(write_dump(path, expert_ids=ids, offsets=[0, 4], n_experts=4), window=2)
    >>> found.layers.select("segment_routing_best_performance", "segment_size_ratio", "segment_cache_hit_rate").row(0)
    (0.8, 1.5, 0.625)
    """
    chosen = check_layers(dump, layers)
    counts = count_dump_segments(dump, chosen, window=window, rho=rho, n_threads=n_threads, progress=progress)
    return tabulate_segments(counts, chosen)


def count_dump_segments(dump: Dump, layers: IndexArray, **options: Any) -> SegmentCounts:
    """Count the windows and caches of some layers of a dump; `options` are those of `count_segments`."""
    follows = find_follows(dump)
    view, back = layer_view(layers)
    infos = [dump.layers[i] for i in range(dump.n_layers)[view]]
    ids = dump.expert_ids[:, view]
    total: SegmentCounts | None = None
    for rows in token_pieces(follows, MOST_SLOTS // max(1, dump.top_k)):
        with said_of_the_dump(dump, arrays=("expert_ids",)):
            counts = count_segments(
                ids[rows],
                **layer_sizes(infos),
                follows=follows[rows],
                **options,
            )
        total = counts if total is None else total + counts
    assert total is not None  # noqa: S101 (there is a piece of no rows, at least)
    arrays = {field.name: getattr(total, field.name) for field in dataclasses.fields(total)}
    picked: dict[str, Any] = {name: array[back] for name, array in arrays.items() if isinstance(array, np.ndarray)}
    return dataclasses.replace(total, **picked)


def tabulate_segments(counts: SegmentCounts, layers: npt.ArrayLike | None = None) -> SegmentMetrics:
    """Make segment metrics of counts.

    Parameters
    ----------
    counts : SegmentCounts
        As `moefps.kernels.count_segments` gives them, or a sum of such; what was not counted is null.
    layers : array-like of int [L], optional
        The layers' numbers; 0..L-1 when not given.

    Returns
    -------
    SegmentMetrics

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import count_segments
    >>> ids = np.array([[[0, 1]], [[0, 2]], [[0, 1]]], dtype=np.int16)
    >>> found = tabulate_segments(count_segments(ids, n_experts=4, follows=[False, True, True], window=2))
    >>> found.experts.select("segment_routing_best_performance", "alpha", "segment_size_ratio").rows()[:2]
    [(1.0, 1, 0.5), (0.6666666666666666, 1, 0.5)]
    """
    windows, k, n = counts.windows, counts.top_k, len(counts.windows)
    numbers = np.arange(n) if layers is None else np.asarray(layers)
    of_layers = None if counts.histograms is None else counts.histograms.sum(axis=1)
    frame = pl.DataFrame(
        {
            "layer": numbers,
            **_performance(of_layers, k * windows, windows),
            "windows": windows,
            **_rates(counts),
            "reason": _reasons(n, (counts.histograms is None, NOT_COUNTED), (windows == 0, NO_WINDOW[1])),
            "cache_reason": _reasons(n, (counts.activations is None, NO_CACHE), (counts.activations == 0, NO_TOKEN[1])),
        }
    )
    at, expert = np.nonzero(np.arange(int(counts.n_experts.max(initial=0))) < counts.n_experts[:, np.newaxis])
    of_experts = None if counts.histograms is None else counts.histograms[at, expert]
    found = _performance(of_experts, (k * windows)[at], windows[at])
    experts = pl.DataFrame(
        {
            "layer": numbers[at],
            "expert": expert,
            **found,
            "reason": _reasons(
                len(at),
                (counts.histograms is None, NOT_COUNTED),
                (windows[at] == 0, NO_WINDOW[1]),
                (found["alpha"].is_null().to_numpy(), NEVER_ACTIVE),
            ),
        }
    )
    return SegmentMetrics(frame, experts, counts)


def segment_columns(counts: SegmentCounts, layers: npt.ArrayLike) -> pl.DataFrame:
    """Give what the segment metrics of the registry are made of.

    Parameters
    ----------
    counts : SegmentCounts
        Of histograms and caches.
    layers : array-like of int [L]
        The layers' numbers.

    Returns
    -------
    polars.DataFrame
        A row a layer: ``layer``, ``segment_windows``, ``segment_performance``, ``segment_size``, ``cache_hits``,
        ``cache_activations``.
    """
    return tabulate_segments(counts, layers).layers.select(
        "layer",
        segment_windows="windows",
        segment_performance="segment_routing_best_performance",
        segment_size="segment_size_ratio",
        cache_hits="hits",
        cache_activations="activations",
    )


def _performance(histograms: IndexArray | None, slots: IndexArray, windows: IndexArray) -> dict[str, pl.Series]:
    """Find the best alpha of each histogram of f [n, m + 1]; `slots` is k·windows."""
    if histograms is None:
        nothing = [None] * len(windows)
        return {
            "segment_routing_best_performance": pl.Series(nothing, dtype=pl.Float64),
            "alpha": pl.Series(nothing, dtype=pl.Int64),
            "segment_size_ratio": pl.Series(nothing, dtype=pl.Float64),
        }
    m = histograms.shape[1] - 1
    f = np.arange(1, m + 1)
    # Over f >= alpha, for alpha = 1..m.
    chosen = np.cumsum(histograms[:, :0:-1], axis=1)[:, ::-1]
    active = np.cumsum((histograms[:, 1:] * f)[:, ::-1], axis=1)[:, ::-1]
    f1 = _ratio(2 * active, m * chosen + active[:, :1])
    # The first of equals is the lowest alpha.
    best = f1.argmax(axis=1)[:, np.newaxis]
    is_active = pl.Series(active[:, 0] > 0)
    values = {
        "segment_routing_best_performance": np.take_along_axis(f1, best, axis=1)[:, 0],
        "alpha": best[:, 0] + 1,
        "segment_size_ratio": _ratio(np.take_along_axis(chosen, best, axis=1)[:, 0], slots),
    }
    return {name: pl.select(pl.when(is_active).then(pl.Series(array))).to_series() for name, array in values.items()}


def _rates(counts: SegmentCounts) -> dict[str, pl.Series]:
    n = len(counts.windows)
    columns = {"cache_size": counts.cache_sizes, "hits": counts.hits, "activations": counts.activations}
    found = {name: pl.Series([None] * n if array is None else array, dtype=pl.Int64) for name, array in columns.items()}
    rate = pl.DataFrame(found).select(pl.when(pl.col("activations") > 0).then(pl.col("hits") / pl.col("activations")))
    return {"segment_cache_hit_rate": rate.to_series(), **found}


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Float64Array:
    """Divide, with 0 where there is nothing to divide by: those are left out afterwards."""
    found: Float64Array = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
    return found


def _reasons(n: int, *cases: tuple[npt.ArrayLike, str]) -> pl.Series:
    """Give the text of the first case that holds for each of `n` rows."""
    found = np.full(n, None, dtype=object)
    for holds, text in reversed(cases):
        found[np.broadcast_to(holds, (n,))] = text
    return pl.Series(found.tolist(), dtype=pl.String)

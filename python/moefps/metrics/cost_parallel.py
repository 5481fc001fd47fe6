"""Expert parallelism: what a measured load costs where experts are spread over ranks."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.errors import ArgumentError, DataError, ShapeError

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray

__all__ = ["DEFAULT_RANKS", "ExpertParallelism", "expert_parallelism", "place_experts"]

DEFAULT_RANKS = (1, 2, 4, 8)

_NO_LOAD = "no assignments"


@dataclass(frozen=True, eq=False)
class ExpertParallelism:
    """The load of ranks, for one or more numbers of them.

    A layer is done when its busiest rank is; the others wait. So a layer takes the time of the largest load, of which
    1 - mean / max is lost on average over ranks.

    Attributes
    ----------
    layers : polars.DataFrame
        A row for each number of ranks and layer: ``ranks``, ``index``, ``most_experts`` and ``empty_ranks`` (experts
        of the ranks that have most, and ranks that have none), ``mean_load``, ``max_load`` (assignments of a rank),
        ``imbalance`` (max / mean), ``waiting`` (1 - mean / max), ``busiest_rank``, and ``reason`` where they are null.
    summary : polars.DataFrame
        A row for each number of ranks: ``ranks``, ``n_layers``, ``n_null`` (layers without assignments, which are left
        out), ``imbalance`` (sum over layers of the largest loads / of the means), ``waiting`` (1 - 1 / imbalance),
        ``worst_index`` and ``worst_imbalance`` (the most uneven layer), and ``reason``.
    loads : polars.DataFrame
        A row for each rank: ``ranks``, ``index``, ``rank``, ``first_expert``, ``n_experts``, ``load``.
    """

    layers: pl.DataFrame
    summary: pl.DataFrame
    loads: pl.DataFrame


def place_experts(n_experts: int, n_ranks: int) -> IndexArray:
    """Place experts on ranks: side by side, as evenly as possible, the first ranks having one more where it is uneven.

    Parameters
    ----------
    n_experts : int
        Experts of a layer, E.
    n_ranks : int
        Ranks, r.

    Returns
    -------
    ndarray of int64 [r + 1]
        Rank i has the experts from ``bounds[i]`` to before ``bounds[i + 1]``.

    Examples
    --------
    >>> place_experts(10, 4).tolist()
    [0, 3, 6, 8, 10]
    """
    each, more = divmod(n_experts, n_ranks)
    sizes = np.full(n_ranks, each, dtype=np.int64)
    sizes[:more] += 1
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def expert_parallelism(
    activations: npt.ArrayLike,
    ranks: Iterable[int] = DEFAULT_RANKS,
    *,
    n_experts: npt.ArrayLike | None = None,
    layer_weights: npt.ArrayLike | None = None,
) -> ExpertParallelism:
    """Say how unevenly a load falls on ranks that share out the experts.

    Parameters
    ----------
    activations : array-like of int [L, E]
        Assignments of each expert, as `moefps.kernels.count_routing` counts them: of the whole set. Batch by batch, the
        largest loads add up to no less.
    ranks : iterable of int
        Numbers of ranks. The experts of a layer are placed as `place_experts` has it; with more ranks than experts,
        some have none.
    n_experts : array-like of int [L], optional
        Experts of each layer, where some have fewer than E.
    layer_weights : array-like of float [L], optional
        What an assignment costs in each layer, such as the operations of one expert; the same in all when not given.

    Returns
    -------
    ExpertParallelism

    Raises
    ------
    ArgumentError, DataError, ShapeError
        A number of ranks is not a whole number from 1 on or is given twice, or the arrays are not what they must be.

    Examples
    --------
    >>> found = expert_parallelism([[30, 10, 10, 10]], ranks=[2])
    >>> found.summary["imbalance"][0], found.summary["waiting"][0]
    (1.3333333333333333, 0.25)
    """
    numbers = check_ranks(ranks)
    counts = np.asarray(activations)
    if counts.ndim != 2 or 0 in counts.shape:
        raise ShapeError(f"activations: shape {counts.shape}; accepted: [L, E], of at least one layer and expert")
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise DataError(f"activations: {counts.dtype}, some may be negative; accepted: counts, whole numbers from 0 on")
    width = counts.shape[1]
    sizes = np.full(len(counts), width) if n_experts is None else _of_layers("n_experts", n_experts, len(counts))
    if (sizes < 1).any() or (sizes > width).any():
        raise ArgumentError(f"n_experts: {sizes.tolist()}; accepted: 1 to {width}, the width of activations")
    weights = np.ones(len(counts)) if layer_weights is None else _of_layers("layer_weights", layer_weights, len(counts))
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ArgumentError("layer_weights: some are negative, infinite or NaN; accepted: numbers from 0 on")
    loads = _loads(counts, sizes, numbers)
    layers = _layers(loads)
    return ExpertParallelism(layers, _summary(layers, weights), loads)


def check_ranks(ranks: Iterable[int]) -> list[int]:
    """Return numbers of ranks that are accepted.

    Raises
    ------
    ArgumentError
        One is not a whole number from 1 on, is given twice, or there is none.
    """
    try:
        found = [operator.index(number) for number in ranks]
    except TypeError:
        raise ArgumentError(f"ranks: {ranks!r}; accepted: whole numbers from 1 on") from None
    if not found or min(found) < 1 or len(set(found)) < len(found) or any(isinstance(one, bool) for one in ranks):
        raise ArgumentError(f"ranks: {found}; accepted: whole numbers from 1 on, each once")
    return found


def _of_layers(name: str, values: Any, n_layers: int) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.shape != (n_layers,) or array.dtype.kind not in ("iu" if name == "n_experts" else "iuf"):
        raise ShapeError(
            f"{name}: {array.dtype} of shape {array.shape}; accepted: a number for each of {n_layers} layers"
        )
    return array


def _loads(counts: npt.NDArray[Any], sizes: npt.NDArray[Any], numbers: Sequence[int]) -> pl.DataFrame:
    """Add up the load of every rank."""
    rows: dict[str, list[int]] = {name: [] for name in ("ranks", "index", "rank", "first_expert", "n_experts", "load")}
    for n_ranks in numbers:
        for index, size in enumerate(sizes.tolist()):
            bounds = place_experts(size, n_ranks)
            until = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts[index, :size], dtype=np.int64)])
            load = until[bounds[1:]] - until[bounds[:-1]]
            rows["ranks"] += [n_ranks] * n_ranks
            rows["index"] += [index] * n_ranks
            rows["rank"] += range(n_ranks)
            rows["first_expert"] += bounds[:-1].tolist()
            rows["n_experts"] += np.diff(bounds).tolist()
            rows["load"] += load.tolist()
    return pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.Int64))


def _layers(loads: pl.DataFrame) -> pl.DataFrame:
    """Compare the busiest rank of a layer with the mean."""
    load = pl.col("load")
    found = loads.group_by("ranks", "index", maintain_order=True).agg(
        pl.col("n_experts").max().alias("most_experts"),
        (pl.col("n_experts") == 0).sum().cast(pl.Int64).alias("empty_ranks"),
        load.sum().alias("total"),
        load.max().alias("max_load"),
        load.arg_max().cast(pl.Int64).alias("busiest_rank"),
    )
    is_used = pl.col("max_load") > 0
    whole = pl.col("max_load") * pl.col("ranks")
    return found.with_columns(
        (pl.col("total") / pl.col("ranks")).alias("mean_load"),
        pl.when(is_used).then(whole / pl.col("total")).alias("imbalance"),
        pl.when(is_used).then(1 - pl.col("total") / whole).alias("waiting"),
        pl.when(is_used).then(pl.col("busiest_rank")).alias("busiest_rank"),
        pl.when(~is_used).then(pl.lit(_NO_LOAD)).alias("reason"),
    ).select(
        "ranks",
        "index",
        "most_experts",
        "empty_ranks",
        "mean_load",
        "max_load",
        "imbalance",
        "waiting",
        "busiest_rank",
        "reason",
    )


def _summary(layers: pl.DataFrame, weights: npt.NDArray[Any]) -> pl.DataFrame:
    """Add up layers: each takes the time of its busiest rank."""
    weight = pl.DataFrame({"index": np.arange(len(weights)), "weight": weights.astype(np.float64)})
    cost = pl.col("weight")
    worst = pl.col("imbalance").arg_max()
    found = (
        layers.join(weight, on="index", how="left", maintain_order="left")
        .group_by("ranks", maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("n_layers"),
            pl.col("imbalance").is_null().sum().cast(pl.Int64).alias("n_null"),
            (pl.col("max_load") * cost).sum().alias("largest"),
            (pl.col("mean_load") * cost).sum().alias("mean"),
            pl.col("index").get(worst, null_on_oob=True).alias("worst_index"),
            pl.col("imbalance").max().alias("worst_imbalance"),
        )
    )
    is_used = pl.col("largest") > 0
    return found.with_columns(
        pl.when(is_used).then(pl.col("largest") / pl.col("mean")).alias("imbalance"),
        pl.when(is_used).then(1 - pl.col("mean") / pl.col("largest")).alias("waiting"),
        pl.when(~is_used).then(pl.lit(_NO_LOAD)).alias("reason"),
    ).select("ranks", "n_layers", "n_null", "imbalance", "waiting", "worst_index", "worst_imbalance", "reason")

"""What a measured trace costs: the operations that its experts spent, and how they fall on ranks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.errors import ArgumentError, DumpError
from moefps.io import take_dump
from moefps.metrics.cost import LayerCost, ModelCost, model_cost
from moefps.metrics.cost_parallel import DEFAULT_RANKS, ExpertParallelism, check_ranks, expert_parallelism
from moefps.metrics.reduction import reduce_dump

if TYPE_CHECKING:
    from moefps._typing import PathLike, Progress
    from moefps.io import Dump
    from moefps.kernels import RoutingCounts

__all__ = ["RoutingCost", "routing_cost"]


@dataclass(frozen=True, eq=False)
class RoutingCost:
    """What a trace costs.

    Attributes
    ----------
    source : str
        The dump.
    n_tokens : int
        Its rows.
    layers : polars.DataFrame
        A row a layer of the dump: ``index``, ``path``, ``layer``, ``stack``, ``n_experts`` (those that compute),
        ``top_k``, ``rows`` (tokens of the layer's stack), ``assignments`` (slots on an expert that computes),
        ``passive_slots``, ``empty_slots`` (dropped), ``experts_per_token`` (assignments / rows), ``slot_share`` (of
        the k slots of every row, those that cost something), ``flops_per_expert``, ``flops`` (spent by all rows) and
        ``flops_of_full_slots`` (k experts for each row); the last three are null without a model.
    parallelism : ExpertParallelism
        The load of ranks, by `index` of the layer; in its summary, layers weigh as much as one of their experts costs
        where a model is known.
    model : ModelCost or None
        What the model costs.
    """

    source: str
    n_tokens: int
    layers: pl.DataFrame
    parallelism: ExpertParallelism
    model: ModelCost | None

    @property
    def expert_flops(self) -> float | None:
        """Operations that all experts spent on all tokens; None without a model."""
        return None if self.model is None else float(self.layers["flops"].sum())

    @property
    def expert_flops_per_token(self) -> float | None:
        """The same for a token, in every stack that text passes through; None without a model."""
        if self.model is None:
            return None
        text = self.layers.filter(pl.col("stack").ne_missing("vision") & (pl.col("rows") > 0))
        return float(text.select((pl.col("flops") / pl.col("rows")).sum()).item())

    @property
    def slot_share(self) -> float | None:
        """Of all slots, the share on an expert that computes; layers weigh as their experts cost. None without rows."""
        cost = pl.lit(1.0) if self.model is None else pl.col("flops_per_expert")
        spent, full = self.layers.select(
            (pl.col("assignments") * cost).sum(), (pl.col("rows") * pl.col("top_k") * cost).sum().alias("full")
        ).row(0)
        return spent / full if full else None


def routing_cost(
    dump: Dump | PathLike,
    model: Any = None,
    *,
    ranks: Iterable[int] = DEFAULT_RANKS,
    n_threads: int | None = None,
    progress: Progress = False,
) -> RoutingCost:
    """Count what a trace costs.

    Parameters
    ----------
    dump : Dump or path
        The trace.
    model : ModelCost, or what `model_cost` takes, optional
        The model that it is of. Without it, assignments are counted, and no operations.
    ranks : iterable of int
        Numbers of ranks to spread experts over.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable
        True shows a bar; a callable gets ``(done, total)``.

    Returns
    -------
    RoutingCost

    Raises
    ------
    ArgumentError
        A number of ranks is not accepted, or the model is another one than the dump's.
    DataError, DumpError, FileError
        The dump cannot be read.

    Notes
    -----
    A dump does not know which tokens were run together, so loads are those of the whole set. Batch by batch, the
    largest loads of a layer add up to no less: what is said here of imbalance and waiting is a lower limit.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from moefps.io import write_dump
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> ids = np.array([[[0, 1]], [[0, 2]], [[0, -1]]])
    >>> cost = routing_cost(write_dump(path, expert_ids=ids, offsets=[0, 3], n_experts=4), ranks=[2])
    >>> cost.slot_share, cost.parallelism.summary["imbalance"][0]
    (0.8333333333333334, 1.6)
    """
    numbers = check_ranks(ranks)
    opened = take_dump(dump, "dump")
    cost = model if model is None or isinstance(model, ModelCost) else model_cost(model)
    matched = None if cost is None else _match(opened, cost)
    if not opened.n_layers:
        raise DumpError(f"{os.fspath(opened.path)}: has no MoE layer, so nothing was routed")
    counts = reduce_dump(
        opened, np.arange(opened.n_layers), coactivation="none", n_threads=n_threads, progress=progress
    )
    layers = _layer_table(opened, counts, matched)
    weights = None if matched is None else [layer.flops_per_expert for layer in matched]
    parallelism = expert_parallelism(counts.activations, numbers, n_experts=counts.n_experts, layer_weights=weights)
    return RoutingCost(os.fspath(opened.path), opened.n_tokens, layers, parallelism, cost)


def _match(dump: Dump, cost: ModelCost) -> list[LayerCost]:
    """Find the model's layer for each of the dump's: by path, or in order where no path is known to the model.

    Raises
    ------
    ArgumentError
        The model has no such layer, or another number of experts.
    """
    by_path = {layer.path: layer for layer in cost.layers}
    found = [by_path.get(info.path) for info in dump.layers]
    if not any(found) and len(dump.layers) == len(cost.layers):
        # Traces of other tools name layers in their own way.
        found = list(cost.layers)
    matched = []
    for info, layer in zip(dump.layers, found, strict=True):
        if layer is None:
            raise ArgumentError(
                f"{os.fspath(dump.path)}: its layer {info.path} is not in {cost.source}; accepted: a dump of that model"
            )
        if (layer.n_experts + layer.passive_experts, layer.passive_experts) != (info.n_experts, info.passive_experts):
            raise ArgumentError(
                f"{os.fspath(dump.path)}: its layer {info.path} has {info.n_experts} experts, and {layer.path} of "
                f"{cost.source} has {layer.n_experts + layer.passive_experts}; accepted: a dump of that model"
            )
        matched.append(layer)
    return matched


def _layer_table(dump: Dump, counts: RoutingCounts, matched: Sequence[LayerCost] | None) -> pl.DataFrame:
    """Put the counts of each layer beside what an expert costs."""
    rows = _rows_by_stack(dump)
    total = [rows[info.stack] for info in dump.layers]
    slots = np.array(total) * counts.top_k
    frame = pl.DataFrame(
        {
            "index": [info.index for info in dump.layers],
            "path": [info.path for info in dump.layers],
            "layer": [info.layer for info in dump.layers],
            "stack": [info.stack for info in dump.layers],
            "n_experts": counts.n_experts,
            "top_k": counts.top_k,
            "rows": total,
            "assignments": counts.assignments,
            "passive_slots": counts.passive_slots,
            "empty_slots": slots - counts.assignments - counts.passive_slots,
            "flops_per_expert": [None] * len(total) if matched is None else [one.flops_per_expert for one in matched],
        },
        schema_overrides={"stack": pl.String, "flops_per_expert": pl.Int64, "rows": pl.Int64},
    )
    has_rows = pl.col("rows") > 0
    each = pl.col("flops_per_expert").cast(pl.Float64)
    return frame.with_columns(
        pl.when(has_rows).then(pl.col("assignments") / pl.col("rows")).alias("experts_per_token"),
        pl.when(has_rows).then(pl.col("assignments") / (pl.col("rows") * pl.col("top_k"))).alias("slot_share"),
        (pl.col("assignments") * each).alias("flops"),
        (pl.col("rows") * pl.col("top_k") * each).alias("flops_of_full_slots"),
    )


def _rows_by_stack(dump: Dump) -> dict[str | None, int]:
    """Count the rows that a layer of each stack could have seen."""
    stacks: dict[str | None, int] = dict.fromkeys((info.stack for info in dump.layers), dump.n_tokens)
    tokens = None if set(stacks) == {None} else dump.tokens
    if tokens is None or "stack" not in tokens.columns:
        return stacks
    known = dict(tokens["stack"].cast(pl.String).value_counts().rows())
    return {name: dump.n_tokens if name is None else int(known.get(name, 0)) for name in stacks}

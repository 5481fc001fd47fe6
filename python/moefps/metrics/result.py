"""What routing metrics are handed over as: tidy tables, and a few ways to look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.errors import ArgumentError
from moefps.kernels import check_count
from moefps.metrics.registry import find_metric

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray

__all__ = ["PairCounts", "RoutingMetrics"]


@dataclass(frozen=True, eq=False)
class PairCounts:
    """How many tokens chose each pair of experts.

    Attributes
    ----------
    counts : ndarray of int64 [G, L, E, E]
        Tokens that chose both; on the diagonal, those that chose the one.
    n_experts, top_k, layers : ndarray of int64 [L]
        Experts, slots and number of each layer.
    groups : polars.Series [G] or None
        The groups; None where there is one of all tokens.
    """

    counts: npt.NDArray[Any]
    n_experts: IndexArray
    top_k: IndexArray
    layers: IndexArray
    groups: pl.Series | None


@dataclass(frozen=True, eq=False, repr=False)
class RoutingMetrics:
    """Routing metrics of a dump, of fingerprints, or of counts.

    Every table has a first column ``group`` more where ``by=`` was given.

    Attributes
    ----------
    layers : polars.DataFrame
        A row a layer and metric: ``layer``, ``metric``, ``value``, ``text`` (the experts of dead_experts and
        underused_experts, the word of routing_type), ``reason`` (why there is no value), ``chance`` (the value under
        independent uniform top-k), ``target``, ``threshold``, ``met``, ``note``, ``lo``, ``hi`` (the bootstrap
        interval), ``reason_ci`` (why there is none).
    summary : polars.DataFrame
        A row a metric: ``metric``, ``n_layers`` (layers with a value), ``n_null`` (without), ``mean``, ``min``,
        ``max``, ``std``, ``p5``, ``p25``, ``p50``, ``p75``, ``p95`` over layers, ``better``, ``chance``, ``target``,
        ``met`` (whether the mean over layers meets it), ``n_missed`` (layers that miss it; null without a target),
        ``note``, ``reason``,
        ``lo``, ``hi`` (of the mean), ``reason_ci``.
    experts : polars.DataFrame
        A row an expert: ``layer``, ``expert``, ``expert_token_counts``, ``expert_activation_counts``,
        ``expert_weighted_counts``, ``expert_token_proportions``, ``is_dead``, ``is_underused``.
    details : polars.DataFrame
        A row a layer: what is known of it, and how many rows, tokens, slots and pairs were counted or left out.
    domains : polars.DataFrame or None
        With ``by=``, a row a group, layer and expert: ``tokens`` (of the group, that chose it),
        ``domain_specialization``, ``chance``, ``domain_affinity``, and ``domain_purity`` (of the expert, over groups).
    about : dict
        What was measured and how: source, convention, sizes, groups, resampling.
    """

    layers: pl.DataFrame
    summary: pl.DataFrame
    experts: pl.DataFrame
    details: pl.DataFrame
    domains: pl.DataFrame | None
    about: Mapping[str, Any]
    pairs: PairCounts | None = field(default=None)

    @property
    def missed(self) -> pl.DataFrame:
        """The rows of `layers` that miss their target."""
        return self.layers.filter(pl.col("met").eq(other=False))

    def value(self, metric: str, *, layer: int | None = None, group: Any = None) -> float | None:
        """Give one value.

        Parameters
        ----------
        metric : str
            A name, or one that it is also known by.
        layer : int, optional
            Of this layer; the mean over layers when not given.
        group : optional
            Of this group; needed where there are several.

        Returns
        -------
        float or None
            None where the metric is not defined.

        Raises
        ------
        ArgumentError
            There is no such metric, layer or group here.
        """
        frame = self.summary if layer is None else self.layers
        named = frame.filter(_is_named(metric))
        if isinstance(layer, bool):
            raise ArgumentError(f"layer: {layer!r}; accepted: the number of a layer, or None")
        if not named.height:
            raise ArgumentError(f"metric: {metric!r} is not among the metrics here, or is not one number a layer")
        for name, wanted in (("layer", layer), ("group", group)):
            if name in named.columns:
                there = named[name].unique(maintain_order=True).to_list()
                if wanted not in there:
                    raise ArgumentError(f"{name}: {wanted!r}; accepted: {', '.join(map(str, there))}")
                named = named.filter(pl.col(name) == wanted)
            elif wanted is not None:
                raise ArgumentError(f"{name}: {wanted!r}, but there are no groups here; accepted: None")
        found: float | None = named["mean" if layer is None else "value"][0]
        return found

    def worst(self, n: int | None = 10, *, metric: str | None = None) -> pl.DataFrame:
        """Give the worst rows of `layers`: those that miss their target by most, then those that stand out.

        Parameters
        ----------
        n : int, optional
            How many; all when None.
        metric : str, optional
            Of this metric alone.

        Returns
        -------
        polars.DataFrame
            ``layer``, ``metric``, ``value``, ``better``, ``target``, ``met``, ``violation`` (how far on the wrong
            side of the target, as a share of it: negative where it is met) and ``deviation`` (how far on the worse
            side of the mean over layers, in standard deviations). Only metrics with a target or a better direction.
        """
        _check_rows(n)
        keys = [name for name in ("group", "layer", "metric") if name in self.layers.columns]
        outer = [name for name in keys if name != "layer"]
        value, threshold = pl.col("value"), pl.col("threshold")
        up = pl.col("target").str.starts_with(">")
        frame = self.layers.join(self.summary.select(*outer, "better", "mean", "std"), on=outer, maintain_order="left")
        frame = frame.filter(value.is_not_null(), (pl.col("better") != "-") | threshold.is_not_null())
        if metric is not None:
            frame = frame.filter(_is_named(metric))
        size = pl.when(threshold == 0).then(1.0).otherwise(threshold.abs())
        sign = pl.when(pl.col("better") == "up").then(-1.0).when(pl.col("better") == "down").then(1.0)
        frame = frame.with_columns(
            violation=(value - threshold) / size * pl.when(up).then(-1.0).otherwise(1.0),
            deviation=pl.when(pl.col("std") > 0).then((value - pl.col("mean")) / pl.col("std") * sign).fill_nan(None),
        )
        missed = pl.col("met").eq(other=False).fill_null(value=False)
        frame = frame.sort(
            missed, "violation", "deviation", descending=True, nulls_last=True, maintain_order=True
        ).select(*keys, "value", "better", "target", "met", "violation", "deviation")
        return frame if n is None else frame.head(n)

    def worst_layers(self, n: int | None = None) -> pl.DataFrame:
        """Give the layers from the worst: by targets missed, then by how far, then by how they stand out.

        Parameters
        ----------
        n : int, optional
            How many; all when None.

        Returns
        -------
        polars.DataFrame
            ``layer``, ``n_missed``, ``worst_metric`` (the one that misses its target by most, or stands out most),
            ``violation`` and ``deviation`` (of that metric).
        """
        _check_rows(n)
        keys = [name for name in ("group", "layer") if name in self.layers.columns]
        frame = (
            self.worst(None)
            .group_by(*keys, maintain_order=True)
            .agg(
                pl.col("met").not_().sum().cast(pl.Int64).alias("n_missed"),
                pl.col("metric").first().alias("worst_metric"),
                pl.col("violation").first(),
                pl.col("deviation").first(),
            )
        )
        frame = frame.sort("n_missed", "violation", "deviation", descending=True, nulls_last=True, maintain_order=True)
        return frame if n is None else frame.head(n)

    def coactivation(self, layer: int | None = None) -> pl.DataFrame:
        """Give which experts are chosen together, over all ordered pairs of different experts.

        Parameters
        ----------
        layer : int, optional
            Of this layer; all when not given.

        Returns
        -------
        polars.DataFrame
            A row a pair: ``layer``, ``expert``, ``other``, ``tokens`` (that chose both), ``coactivation`` (as a share
            of the tokens that chose ``expert``, null where none did), ``chance`` ((k-1)/(E-1)).

        Raises
        ------
        ArgumentError
            Pairs were not counted, or there is no such layer.
        """
        if self.pairs is None:
            reason = self.about.get("no_pairs") or "pairs of experts were not counted"
            raise ArgumentError(f"coactivation: not there, as {reason}")
        pairs = self.pairs
        if layer is not None:
            accepted = ", ".join(map(str, pairs.layers.tolist()))
            if check_count("layer", layer, accepted) not in pairs.layers:
                raise ArgumentError(f"layer: {layer!r}; accepted: {accepted}")
        parts = []
        for place, number in enumerate(pairs.layers.tolist()):
            if layer is None or number == layer:
                parts.append(_pair_frame(pairs, place))
        frame = pl.concat(parts)
        return frame if pairs.groups is None else frame.sort("_cell", maintain_order=True).drop("_cell")

    def tables(self) -> dict[str, pl.DataFrame]:
        """Give every table by its name."""
        found = {"layers": self.layers, "summary": self.summary, "experts": self.experts, "details": self.details}
        return found if self.domains is None else {**found, "domains": self.domains}

    def __repr__(self) -> str:
        about = self.about
        head = f"RoutingMetrics of {about.get('source', 'counts')}"
        sizes = [_counted(about[name], word) for name, word in _SIZES if about.get(name) is not None]
        lines = [f"{head}: {', '.join(sizes)}" if sizes else head]
        n_groups = self.summary["group"].n_unique() if "group" in self.summary.columns else 0
        if n_groups:
            by = f"by {about['by']}: " if about.get("by") is not None else ""
            lines.append(f"{by}{_counted(n_groups, 'group')}")
        n_values = self.summary.filter(pl.col("n_layers") > 0)["metric"].n_unique()
        n_null = self.summary["metric"].n_unique() - n_values
        said = f"{_counted(n_values, 'metric')} with values" + (
            f", {n_null} without (see summary: reason)" if n_null else ""
        )
        judged = self.summary.filter(pl.col("met").is_not_null())
        if judged.height:
            said += f"; {int(judged['met'].sum())} of {_counted(judged.height, 'target')} met by the mean over layers"
        lines.append(said)
        if not n_groups:
            shown = self.summary.filter(pl.col("metric").is_in(_SHOWN), pl.col("mean").is_not_null())
            lines += [_line(row) for row in shown.iter_rows(named=True)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the summary in a notebook."""
        import html

        columns = [
            name
            for name in ("group", "metric", "mean", "min", "max", "chance", "target", "met")
            if name in self.summary.columns
        ]
        shown = self.summary.filter(pl.col("n_layers") > 0).select(columns)
        return f"<p>{html.escape(repr(self).splitlines()[0])}</p>{shown._repr_html_()}"


_SIZES = (("n_samples", "sample"), ("n_tokens", "token"), ("n_layers", "layer"))
_SHOWN = (
    "expert_utilization_rate",
    "token_choice_entropy",
    "expert_activation_entropy",
    "load_balancing_coefficient",
    "gini_coefficient",
    "min_max_expert_load_ratio",
    "maxvio",
    "top_k_entropy",
    "expert_overlap",
    "sequential_routing_consistency",
)
_SIGNS = {True: "  ✓", False: "  ✗", None: ""}


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _is_named(metric: str) -> pl.Expr:
    """Say which rows are a metric's, by any of its names."""
    known = find_metric(metric)
    names = {name.casefold() for name in (known.name, *known.aliases)}
    return pl.col("metric").str.to_lowercase().is_in(names)


def _check_rows(n: Any) -> None:
    if n is not None and check_count("n", n, "an integer >= 0, or None") < 0:
        raise ArgumentError(f"n: {n}; accepted: an integer >= 0, or None")


def _line(row: Mapping[str, Any]) -> str:
    target = f"  target {row['target']}" if row["target"] else ""
    return f"  {row['metric']:<34}{row['mean']:>9.4g}  [{row['min']:.4g}, {row['max']:.4g}]{target}{_SIGNS[row['met']]}"


def _pair_frame(pairs: PairCounts, place: int) -> pl.DataFrame:
    size, k = int(pairs.n_experts[place]), int(pairs.top_k[place])
    expert, other = np.nonzero(~np.eye(size, dtype=np.bool_))
    counts = pairs.counts[:, place]
    n_cells = len(counts)
    chance = (k - 1) / (size - 1) if size > 1 and k <= size else None
    tokens, alone = counts[:, expert, other].reshape(-1), counts[:, expert, expert].reshape(-1)
    frame = pl.DataFrame(
        {
            "_cell": np.repeat(np.arange(n_cells), len(expert)),
            "layer": np.full(len(tokens), pairs.layers[place]),
            "expert": np.tile(expert, n_cells),
            "other": np.tile(other, n_cells),
            "tokens": tokens,
            "_alone": alone,
        }
    )
    share = pl.when(pl.col("_alone") > 0).then(pl.col("tokens") / pl.col("_alone"))
    frame = frame.with_columns(share.alias("coactivation"), pl.lit(chance, dtype=pl.Float64).alias("chance")).drop(
        "_alone"
    )
    if pairs.groups is None:
        return frame.drop("_cell")
    groups = pairs.groups[frame["_cell"].to_numpy()].alias("group")
    return frame.select("_cell", groups, pl.exclude("_cell"))

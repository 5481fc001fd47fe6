"""The page of routing metrics."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps._words import counted, listed
from moefps.reporting.content import Content
from moefps.reporting.metric_words import metric_sections
from moefps.reporting.tables import PageTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from moefps.metrics import RoutingMetrics

__all__ = ["metric_content"]

_SUMMARY = (
    *("group", "metric", "mean", "min", "max", "chance", "better", "target", "met", "n_missed", "n_layers", "n_null"),
    *("reason", "note"),
)
_LAYERS = ("group", "layer", "metric", "value", "text", "chance", "target", "met", "reason")


def metric_content(found: RoutingMetrics) -> Content:
    """Say what routing metrics are.

    Parameters
    ----------
    found : RoutingMetrics
        The metrics.
    """
    from moefps.reporting.figures import metric_charts

    about = found.about
    source = str(about.get("source", "counts"))
    sizes = [
        counted(int(about[name]), noun)
        for name, noun in (("n_samples", "sample"), ("n_tokens", "token"), ("n_layers", "layer"))
        if about.get(name) is not None
    ]
    n_values = found.summary.filter(pl.col("n_layers") > 0)["metric"].n_unique()
    return Content(
        title=f"Routing metrics of {PurePath(source).name or source}",
        lead=f"{', '.join([*sizes, counted(n_values, 'metric')])}.",
        facts=list(_facts(found)),
        sections=metric_sections(found),
        figures=metric_charts(found),
        tables=_tables(found),
    )


def _facts(found: RoutingMetrics) -> Iterator[tuple[str, str]]:
    about = found.about
    yield "source", str(about.get("source", "counts"))
    for key in ("n_samples", "n_tokens", "n_layers"):
        if about.get(key) is not None:
            yield key.removeprefix("n_"), f"{about[key]:,}"
    for key, word in (("n_experts", "experts of a layer"), ("top_k", "slots of a token")):
        sizes = found.details[key].drop_nulls().unique().sort().to_list()
        if sizes:
            yield word, str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    if about.get("by") is not None:
        yield "by", str(about["by"])
        yield "groups", listed([str(group) for group in about.get("groups", [])], 40)
    if about.get("tokens_without_group"):
        yield "tokens without a group, left out", f"{about['tokens_without_group']:,}"
    for key in ("shares", "convention", "capacity_factor", "targets"):
        if about.get(key) is not None:
            yield key.replace("_", " "), _said(about[key])
    yield "intervals", _intervals(about.get("ci"))


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return listed([f"{name} {target}" for name, target in value.items()], 40)
    return str(value)


def _intervals(ci: Mapping[str, Any] | None) -> str:
    if ci is None:
        return "none were asked for"
    if not ci.get("given", True):
        return "none"
    unit = ci.get("resampled", "samples")
    per_unit = ci.get("samples_per_unit", 1)
    blocks = "" if per_unit == 1 else f" (blocks of {per_unit})"
    level = f"{100 * ci['level']:.4g} %"
    return f"{level}, {ci['n_resamples']:,} resamples of {ci['units']:,} {unit}{blocks}, seed {ci['seed']}"


def _tables(found: RoutingMetrics) -> list[PageTable]:
    from moefps.metrics import list_metrics

    def table(name: str, title: str, text: str, frame: pl.DataFrame, **settings: Any) -> PageTable:
        return PageTable(name, title, text, frame, "metrics", **settings)

    names = found.summary["metric"].unique(maintain_order=True).to_list()
    definitions = list_metrics(names).select("metric", "family", "formula", "range", "unit", "better", "source")
    tables = [
        table(
            "summary",
            "Every metric over all layers",
            "The mean over layers is held against the target; a metric without a value says why.",
            found.summary,
            shown=_SUMMARY,
            ends=("mean", "lo", "hi"),
        ),
        table("worst_layers", "Layers from the worst", "By targets missed, then by how far.", found.worst_layers()),
        table(
            "layers",
            "Every metric in every layer",
            "",
            found.layers,
            shown=_LAYERS,
            ends=("value", "lo", "hi"),
        ),
        table("experts", "The load of every expert", "", found.experts),
    ]
    if found.domains is not None:
        tables.append(table("domains", "What each group makes of each expert", "", found.domains))
    tables.append(table("details", "What was counted in each layer", "", found.details))
    tables.append(table("definitions", "What the metrics are", "", definitions))
    return tables

"""The page of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moefps._words import counted, listed
from moefps.comparison.findings import dump_names
from moefps.reporting.content import Content
from moefps.reporting.tables import PageTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from moefps.comparison import Comparison

__all__ = ["comparison_content"]

_KEYS = ("layer", "group")
_AGREEMENT = ("count", "tv", "js", "jaccard", "intersection", "intersection_share", "top1_match", "top5_match")
_EACH = tuple(f"{name}_{side}" for name in ("entropy", "neff", "margin") for side in ("a", "b", "diff"))
_SHARES = tuple(f"{name}_{side}" for name in ("usage_entropy", "top1_share", "top5_share") for side in "ab")
_USAGE = (*_SHARES, "usage_tv", "usage_tv_null", "usage_js")


def comparison_content(found: Comparison) -> Content:
    """Say what a comparison found.

    Parameters
    ----------
    found : Comparison
        As `moefps.compare` gives it, or read back from a folder.
    """
    from moefps.reporting.figures import comparison_charts, left_out_figures

    summary = found.summary
    _, _, findings = found.findings.partition("\n")
    return Content(
        title=f"{' against '.join(dump_names(summary))}: how the same tokens are routed",
        lead=(
            f"{counted(summary['n_tasks'], 'task')}, {counted(summary['count_all'], 'token')} that both dumps have, "
            f"{counted(summary['n_layers'], 'layer')}."
        ),
        facts=list(_facts(summary)),
        markdown=findings,
        figures=comparison_charts(found),
        left_out=left_out_figures(found),
        tables=_tables(found),
    )


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for label in ("a", "b"):
        condition = summary[f"condition_{label}"]
        yield label.upper(), f"{summary[label]}" + (f", condition {condition}" if condition else "")
    yield "differences", "A less B"
    yield "tasks", f"{summary['n_tasks']:,}"
    yield "tokens compared", f"{summary['count_all']:,}"
    sizes = [("n_layers", "layer"), ("n_experts", "expert")]
    model = [counted(summary[key], noun) for key, noun in sizes if summary.get(key) is not None]
    if summary.get("top_k") is not None:
        model.append(f"top-{summary['top_k']}")
    yield "model", ", ".join(model)
    if summary.get("by") is not None:
        yield "groups by", str(summary["by"])
    groups = {name.removeprefix("count_"): n for name, n in summary.items() if name.startswith("count_")}
    yield "tokens by group", listed([f"{name} {number:,}" for name, number in groups.items()], 40)
    yield from _left_out(summary)
    yield from _models(summary)
    for key in ("intervals", "seed"):
        if summary.get(key) is not None:
            yield key, str(summary[key])
    versions = summary.get("tool_versions") or {}
    if versions:
        yield "compared by", ", ".join(f"{name} {version}" for name, version in versions.items())


def _models(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say which models ran, and when, where the dumps say it."""
    for label in ("a", "b"):
        model = (summary.get("models") or {}).get(label) or {}
        words = [str(model[key]) for key in ("id", "type", "dtype", "revision") if model.get(key)]
        captured = (summary.get("captured") or {}).get(label)
        if words or captured:
            yield f"model of {label.upper()}", ", ".join([*words, *([f"captured {captured}"] if captured else [])])


def _left_out(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for label, names in summary["left_out"].items():
        if names:
            yield f"tasks of {label.upper()} without a partner, left out", listed([str(name) for name in names], 20)
    alone = summary.get("tasks_without_response")
    if alone:
        yield "tasks without a tool response", listed([str(name) for name in alone], 20)


def _tables(found: Comparison) -> list[PageTable]:
    def table(name: str, title: str, text: str = "", shown: tuple[str, ...] | None = None) -> PageTable:
        return PageTable(name, title, text, found.tables[name], "comparison", shown)

    of_each = "The same layers and groups: what each condition has by itself."
    return [
        table(
            "layer_metrics",
            "How alike the routing of a token is, by layer and group",
            "Means over tokens; intervals from resampling tasks.",
            (*_KEYS, *_AGREEMENT),
        ),
        table("layer_metrics", "How sure each condition's routing is, by layer and group", of_each, (*_KEYS, *_EACH)),
        table(
            "layer_joint_metrics",
            "How differently experts are used, by layer and group",
            "Usage is the share of assignments that each expert has.",
            (*_KEYS, "N_both", "N_a", "N_b", *_USAGE),
        ),
        table(
            "layer_joint_metrics",
            "The same by shares of weights",
            "Usage is the share of the weights that each expert has.",
            (*_KEYS, *(f"{name}_weighted" for name in _USAGE)),
        ),
        table("top_experts_global", "The experts whose usage differs most", "64 at most."),
        table("top_experts_by_layer", "The experts of each layer whose usage differs most", "64 of a layer at most."),
        table("expert_usage", "The usage of every expert", "Group all: every token that is compared."),
        table(
            "tool_expert_leakage_summary",
            "Do the shifts in the tool's answer and in the solution go together, by layer",
            "The largest absolute r first.",
        ),
        table("tool_expert_leakage_by_layer", "The two shifts of every expert"),
        table("leakage_vs_distance", "By distance to the tool's answer", "Tokens of the solution, over all layers."),
    ]

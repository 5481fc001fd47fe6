"""What routing metrics say, in words that their numbers bear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from moefps._words import counted, listed
from moefps.reporting.content import Section, number_ranges, short, spanned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from moefps.metrics import RoutingMetrics

__all__ = ["metric_sections"]

_MOST_POINTS = 12
_FEW = 100
"""Assignments an expert below which chance alone makes the load visibly uneven: about 10 % of an even share."""


def metric_sections(found: RoutingMetrics) -> list[Section]:
    """Say what metrics found: targets, load and balance, layers that stand out, and what has no value.

    Parameters
    ----------
    found : RoutingMetrics
        The metrics.
    """
    parts = [
        ("Targets", _targets(found)),
        ("Load and balance", _load(found)),
        ("Layers that stand out", _layers(found)),
        ("Without a value", _undefined(found)),
        ("What to keep in mind", _limits(found)),
    ]
    sections = [Section(heading, list(blocks)) for heading, blocks in parts]
    return [section for section in sections if section.blocks]


def _targets(found: RoutingMetrics) -> Iterator[str | list[str]]:
    judged = found.summary.filter(pl.col("met").is_not_null())
    if not judged.height:
        asked = found.about.get("targets") is not None
        yield "No metric with a target has a value here." if asked else "The values are held against no targets."
        return
    if "group" in judged.columns:
        yield f"Targets met by the mean over layers, by {found.about.get('by', 'group')}:"
        yield _cut(_group_lines(judged), "kinds of groups")
        return
    n_met = int(judged["met"].sum())
    said = f"The mean over layers meets {n_met} of {counted(judged.height, 'target')}"
    missed = judged.filter(~pl.col("met"))
    yield f"{said}." if not missed.height else f"{said} and misses {missed.height}:"
    if missed.height:
        yield [_missed(found, row) for row in missed.iter_rows(named=True)]
    partly = judged.filter(pl.col("met"), pl.col("n_missed") > 0)
    if partly.height:
        yield "Met by the mean, but not in every layer:"
        yield [f"{row['metric']} ({row['target']}): missed in {_where(found, row)}" for row in partly.to_dicts()]


def _group_lines(judged: pl.DataFrame) -> list[str]:
    """Say for each set of missed targets which groups miss just these."""
    alike: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for group, rows in judged.group_by("group", maintain_order=True):
        missed = tuple(rows.filter(~pl.col("met"))["metric"].to_list())
        alike.setdefault((rows.height, missed), []).append(str(group[0]))
    return [
        f"{listed(groups, 20)}: {n_targets - len(missed)} of {n_targets}"
        + (f"; missed: {listed(list(missed), 20)}" if missed else "")
        for (n_targets, missed), groups in alike.items()
    ]


def _missed(found: RoutingMetrics, row: Mapping[str, Any]) -> str:
    value = spanned(row["mean"], row["lo"], row["hi"], level=_level(found))
    text = f"{row['metric']}: {value}, and the target is {row['target']}; missed in {_where(found, row)}"
    # With an interval that reaches the target, another sample of texts might meet it.
    if row["lo"] is not None and row["threshold"] is not None and row["lo"] <= row["threshold"] <= row["hi"]:
        text += "; the interval reaches the target, so the miss is not sure"
    return f"{text}; {row['note']}" if row["note"] else text


def _where(found: RoutingMetrics, row: Mapping[str, Any]) -> str:
    missed = found.layers.filter(pl.col("metric") == row["metric"], ~pl.col("met"))["layer"].sort().to_list()
    if len(missed) == row["n_layers"]:
        return "every layer" if row["n_layers"] > 1 else "the only layer"
    word = "layer" if len(missed) == 1 else "layers"
    return f"{word} {number_ranges(missed)} of {row['n_layers']}" if missed else "no layer by itself"


def _load(found: RoutingMetrics) -> Iterator[str | list[str]]:
    if "group" in found.summary.columns:
        yield from _load_of_groups(found)
        return
    n_experts = found.details["n_experts"].unique().sort().to_list()
    sizes = str(n_experts[0]) if len(n_experts) == 1 else f"{n_experts[0]} to {n_experts[-1]}"
    active = _row(found, "num_active_experts")
    if active is not None:
        yield f"Of {sizes} experts of a layer, {short(active['mean'])} get at least one token, on average over layers."
    for metric, words in (
        ("dead_experts", "without a single token"),
        ("underused_experts", "with less than half the even share"),
    ):
        said = _listed(found, metric, words)
        if said:
            yield said
    for metric, words, more in _BALANCE:
        row = _row(found, metric)
        if row is not None:
            lo, hi = (None if row[end] is None else row[end] + more for end in ("lo", "hi"))
            value = spanned(row["mean"] + more, lo, hi, level=_level(found))
            yield f"{words.format(value=value)}{_extremes(found, metric, row, more)}."


_BALANCE = (
    ("gini_coefficient", "The Gini coefficient of the load is {value} on average over layers, where 0 is even", 0.0),
    # maxvio is how much more than that.
    ("maxvio", "The busiest expert of a layer gets {value} times its even share on average", 1.0),
    ("min_max_expert_load_ratio", "The least busy expert of a layer gets {value} of what the busiest one gets", 0.0),
    ("token_choice_entropy", "The entropy of the load is {value} of the largest that it can be", 0.0),
)


def _extremes(found: RoutingMetrics, metric: str, row: Mapping[str, Any], more: float) -> str:
    values = found.layers.filter(pl.col("metric") == metric, pl.col("value").is_not_null()).sort("layer")
    if values.height < 2 or row["min"] == row["max"]:
        return ""
    least, most = (values["layer"][int(place or 0)] for place in (values["value"].arg_min(), values["value"].arg_max()))
    return f"; from {short(row['min'] + more)} in layer {least} to {short(row['max'] + more)} in layer {most}"


def _listed(found: RoutingMetrics, metric: str, words: str) -> str | None:
    rows = found.layers.filter(pl.col("metric") == metric, pl.col("value").is_not_null())
    if not rows.height:
        return None
    some = rows.filter(pl.col("value") > 0).sort("layer")
    if not some.height:
        return f"No expert of any layer is {words}."
    number = int(some["value"].sum())
    if some.height <= _MOST_POINTS:
        where = "; ".join(f"layer {row['layer']}: {listed(str(row['text']).split(', '))}" for row in some.to_dicts())
    else:
        where = f"in layers {number_ranges(some['layer'].to_list())}"
    return f"{counted(number, 'expert')} {words}: {where}."


def _load_of_groups(found: RoutingMetrics) -> Iterator[str | list[str]]:
    points = []
    for metric, words in (("gini_coefficient", "0 is even"), ("maxvio", "0 is even"), ("dead_experts", "by layer")):
        rows = found.summary.filter(pl.col("metric") == metric, pl.col("mean").is_not_null())
        if rows.height < 2 or rows["mean"].min() == rows["mean"].max():
            continue
        ordered = rows.sort("mean", maintain_order=True).to_dicts()
        ends = [
            f"{row['group']} with {spanned(row['mean'], row['lo'], row['hi'], level=_level(found))}"
            for row in (ordered[0], ordered[-1])
        ]
        points.append(f"{metric} ({words}): least for {ends[0]}, most for {ends[1]}")
    if points:
        by = found.about.get("by", "group")
        yield f"Means over layers, by {by}; chance makes groups of few tokens look less even:"
        yield points


def _layers(found: RoutingMetrics) -> Iterator[str | list[str]]:
    worst = found.worst_layers(3)
    if worst.height < 2:
        return
    points = []
    for row in worst.iter_rows(named=True):
        where = f"layer {row['layer']}" + (f" of {row['group']}" if "group" in row else "")
        if row["n_missed"]:
            points.append(f"{where} misses {counted(row['n_missed'], 'target')}, most of all {row['worst_metric']}")
        elif row["deviation"] is not None:
            points.append(
                f"{where}, by {row['worst_metric']}: {short(row['deviation'])} standard deviations on the worse side"
            )
    if points:
        yield "From the worst; among many layers and metrics, some stand out by chance:"
        yield points


def _undefined(found: RoutingMetrics) -> Iterator[str | list[str]]:
    empty = found.summary.filter(pl.col("mean").is_null(), pl.col("reason").is_not_null())
    points = []
    for reason, rows in empty.group_by("reason", maintain_order=True):
        names = rows["metric"].unique(maintain_order=True).to_list()
        points.append(f"{listed(names)}: {reason[0]}")
    if points:
        yield "These metrics have no value, which is not 0:"
        yield _cut(points, "reasons")
    partly = found.summary.filter(pl.col("mean").is_not_null(), pl.col("n_null") > 0)
    if partly.height:
        names = partly["metric"].unique(maintain_order=True).to_list()
        yield f"Without a value in some layers, which are left out of the mean: {listed(names)}."


def _limits(found: RoutingMetrics) -> Iterator[str | list[str]]:
    ci = found.about.get("ci")
    if ci is None:
        yield "No intervals were asked for, so how much of a difference is chance cannot be told."
    elif not ci.get("given", True):
        reasons = found.summary["reason_ci"].drop_nulls().unique(maintain_order=True).to_list()
        yield f"There are no intervals: {listed(reasons, 3)}." if reasons else "There are no intervals."
    outside = found.summary.filter((pl.col("mean") < pl.col("lo")) | (pl.col("mean") > pl.col("hi")))
    if outside.height:
        yield (
            f"Outside their own intervals: {listed(outside['metric'].unique(maintain_order=True).to_list())}. Noise "
            "pushes such values one way, and the interval has that taken out."
        )
    per_expert = found.details.filter(pl.col("n_experts") > 0).select(pl.col("assignments") / pl.col("n_experts"))
    least = per_expert["assignments"].drop_nulls().min() if per_expert.height else None
    if isinstance(least, float) and 0 < least < _FEW:
        yield (
            f"An expert gets as few as {short(least)} assignments on average in a layer: so few make the load look "
            "uneven by chance alone."
        )
    if found.about.get("convention") not in {None, "literature"}:
        yield f"Values follow the convention {found.about['convention']}, not the definitions of the literature."


def _row(found: RoutingMetrics, metric: str) -> dict[str, Any] | None:
    rows = found.summary.filter(pl.col("metric") == metric, pl.col("mean").is_not_null())
    return rows.row(0, named=True) if rows.height else None


def _cut(points: list[str], what: str) -> list[str]:
    if len(points) <= _MOST_POINTS:
        return points
    return [*points[:_MOST_POINTS], f"and {len(points) - _MOST_POINTS:,} more {what}, which the tables have"]


def _level(found: RoutingMetrics) -> float | None:
    ci = found.about.get("ci")
    return None if ci is None else ci.get("level")

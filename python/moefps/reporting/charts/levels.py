"""What each condition has by itself, over layers, and how they differ: entropy, effective experts, margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import altair as alt
import polars as pl

from moefps.reporting.charts.curves import group_rows
from moefps.reporting.charts.figure import Figure, make_figure
from moefps.reporting.charts.lines import Key, curves, interval_rows, legend_selection, rule_at, span
from moefps.reporting.theme import SIDES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps.reporting.charts.study import Study

__all__ = ["LEVELS", "draw_levels"]

_HEIGHT = 220
_WIDTHS = {1: 560, 2: 310}


class Level(NamedTuple):
    """A measure of one condition: its column, the title of its axis with the unit, and the same for tooltips."""

    measure: str
    axis: str
    unit: str


LEVELS = {
    "entropy_neff": (
        "Entropy and effective number of experts of a token's weights, by layer: {versus}",
        (Level("entropy", "mean entropy", "nats"), Level("neff", "mean effective experts", "experts")),
    ),
    "margin": (
        "Margin of a token's first expert over the second, by layer: {versus}",
        (Level("margin", "mean margin", "share of weight"),),
    ),
}
"""By the names of the figures: the title, and what is shown."""


def draw_levels(name: str, study: Study) -> Figure:
    """Draw both conditions above, and their difference in each group below."""
    title, levels = LEVELS[name]
    groups = study.drawn(f"{levels[0].measure}_diff")
    whole = "all" if "all" in groups else groups[0]
    chart = alt.vconcat(_both(study, levels, whole), _differences(study, levels, groups), spacing=26)
    chart = chart.resolve_scale(color="independent", shape="independent", strokeDash="independent")
    words = [
        f"Above: {study.labels[whole]}, each condition by itself.",
        f"Below: the difference, {study.names[0]} minus {study.names[1]}, by group.",
        study.intervals(),
        study.left_out(groups, f"{levels[0].measure}_diff"),
        study.dumps,
    ]
    return make_figure(name, title.format(versus=study.versus), words, chart)


def _both(study: Study, levels: Sequence[Level], group: str) -> alt.HConcatChart:
    """Draw the two conditions of a group."""
    of_group = study.metrics.filter(pl.col("group") == group)
    key = Key("condition", list(study.names), list(SIDES), field="condition")
    picked = legend_selection("picked_condition", key.field)
    panels: list[alt.LayerChart] = []
    for level in levels:
        parts = []
        for side, label in zip("ab", study.names, strict=True):
            columns = {f"{level.measure}_{side}{end}": level.measure + end for end in ("", "_lo", "_hi")}
            side_frame = of_group.select("layer", "count", *columns).rename(columns)
            parts.append(interval_rows(side_frame.with_columns(label=pl.lit(label)), level.measure))
        rows = pl.concat(parts)
        panels.append(
            curves(
                rows,
                key,
                study.layers,
                y=f"{level.axis} ({level.unit})",
                value=f"{level.axis}, {level.unit}",
                ends=span(rows, shortest=0.01),
                width=_WIDTHS[len(levels)],
                height=_HEIGHT,
                picked=picked,
                owner=not panels,
            )
        )
    return alt.hconcat(*panels, spacing=30)


def _differences(study: Study, levels: Sequence[Level], groups: Sequence[str]) -> alt.HConcatChart:
    """Draw the differences of all groups."""
    key = Key("group", [study.labels[group] for group in groups], study.styles(groups))
    picked = legend_selection("picked_group")
    panels: list[alt.LayerChart] = []
    for level in levels:
        rows = group_rows(study, f"{level.measure}_diff", groups)
        low, high = span(rows, zero=True, shortest=0.001)
        if low == 0:
            low = -0.1 * high
        panels.append(
            curves(
                rows,
                key,
                study.layers,
                y=f"difference ({level.unit})",
                value=f"difference, {level.unit}",
                ends=(low, high),
                width=_WIDTHS[len(levels)],
                height=_HEIGHT,
                behind=[rule_at(0.0)],
                picked=picked,
                owner=not panels,
            )
        )
    return alt.hconcat(*panels, spacing=30)

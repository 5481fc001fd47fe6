"""Means of tokens over layers, group by group: total variation, Jaccard index, Jensen-Shannon divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import altair as alt
import polars as pl

from moefps.reporting.charts.figure import Figure, make_figure
from moefps.reporting.charts.lines import Key, curves, interval_rows, layer_axis, span, tidy
from moefps.reporting.theme import GREY

if TYPE_CHECKING:
    from moefps.reporting.charts.study import Study

__all__ = ["CURVES", "Curve", "draw_curves", "draw_panels", "group_rows"]

MOST_PANELS = 12
_PANEL = (262, 150)


class Curve(NamedTuple):
    """A chart of one measure over layers.

    Attributes
    ----------
    measure : str
        The column of the table of layers.
    title : str
        What is shown; ``{versus}`` is replaced by the names of A and B.
    axis : str
        Of the vertical axis, with its unit.
    value : str
        What tooltips call it.
    groups : tuple of str
        These groups, all of which must be there; every group when empty.
    note : str
        What the caption says first.
    """

    measure: str
    title: str
    axis: str
    value: str
    groups: tuple[str, ...] = ()
    note: str = ""


_TV = ("mean total variation (share of weight)", "mean total variation")

CURVES = {
    "tv_curve": Curve(
        "tv",
        "Total variation of routing weights by layer: {versus}",
        *_TV,
        note="0: the same experts with the same weights; 1: no expert in common.",
    ),
    "tv_tool_vs_canonical": Curve(
        "tv",
        "Total variation in the tool response and in the solution: {versus}",
        *_TV,
        ("tool_response", "canonical"),
    ),
    "tv_tool_response_split": Curve(
        "tv",
        "Total variation inside tool responses, docstrings and the rest: {versus}",
        *_TV,
        ("tool_response_docstring", "tool_response_non_docstring"),
    ),
    "A1_tv_curves": Curve("tv", "Total variation by layer, group by group: {versus}", *_TV),
    "B1_jaccard": Curve(
        "jaccard",
        "Overlap of the chosen experts by layer: {versus}",
        "mean Jaccard index (share of experts)",
        "mean Jaccard index",
        note="1: the same experts; 0: none in common.",
    ),
    "js_curve": Curve(
        "js",
        "Jensen-Shannon divergence of routing weights by layer: {versus}",
        "mean divergence (bits)",
        "mean divergence, bits",
        note="0: the same weights; 1: no expert in common.",
    ),
}
"""By the names of the figures."""


def group_rows(study: Study, measure: str, groups: Sequence[str]) -> pl.DataFrame:
    """Give the rows of some groups for `moefps.reporting.charts.lines.curves`."""
    frame = study.metrics.filter(pl.col("group").is_in(list(groups)))
    label = pl.col("group").replace_strict(study.labels, return_dtype=pl.String)
    return interval_rows(frame.with_columns(label=label), measure)


def draw_curves(name: str, study: Study) -> Figure:
    """Draw all groups in one panel."""
    about = CURVES[name]
    groups = study.drawn(about.measure, about.groups or None)
    rows = group_rows(study, about.measure, groups)
    # An index of overlap is near 1, a divergence near 0: the axis has that end on it.
    is_overlap = about.measure == "jaccard"
    chart = curves(
        rows,
        Key("group", [study.labels[group] for group in groups], study.styles(groups)),
        study.layers,
        y=about.axis,
        value=about.value,
        ends=span(rows, zero=not is_overlap, shortest=0.01, bounds=(0.0, 1.0)),
    )
    left_out = "" if about.groups else study.left_out(groups, about.measure)
    words = [about.note, study.intervals(rows), left_out, study.dumps]
    return make_figure(name, about.title.format(versus=study.versus), words, chart)


def draw_panels(name: str, study: Study) -> Figure:
    """Draw a panel for each group, side by side, with all tokens behind it."""
    about = CURVES[name]
    groups = study.drawn(about.measure, most=MOST_PANELS)
    labels = [study.labels[group] for group in groups]
    rows = group_rows(study, about.measure, groups)
    whole = group_rows(study, about.measure, ["all"]).select("layer", whole="value")
    rows = rows.join(whole, on="layer", how="left", maintain_order="left")
    ends = {"domain": list(span(rows, zero=True, shortest=0.01, bounds=(0.0, 1.0))), "nice": False}
    width, height = _PANEL
    base = alt.Chart(width=width, height=height).encode(
        x=layer_axis(study.layers, width),
        color=alt.Color(
            "label:N",
            scale={"domain": labels, "range": [style.color for style in study.styles(groups)]},
            legend=None,
        ),
    )
    title = about.axis.replace(" (", "\n(").split("\n")
    y, low, behind = (
        alt.Y(f"{field}:Q", scale=ends, axis={"title": title, "tickCount": 5}) for field in ("value", "lo", "whole")
    )
    tooltip = [
        alt.Tooltip("label:N", title="group"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("value:Q", title=about.value, format=".4g"),
        alt.Tooltip("range:N", title="95 % interval"),
        alt.Tooltip("whole:Q", title="of all tokens", format=".4g"),
        alt.Tooltip("count:Q", title="tokens", format=","),
    ]
    layered = alt.layer(
        base.mark_line(strokeWidth=1.5).encode(y=behind, detail=alt.Detail("run:N"), color=alt.value(GREY)),
        base.transform_filter("isValid(datum.band)")
        .mark_area(opacity=0.25)
        .encode(y=low, y2=alt.Y2("hi:Q"), detail=alt.Detail("band:N")),
        base.transform_filter("datum.alone").mark_rule(opacity=0.6, strokeWidth=2).encode(y=low, y2=alt.Y2("hi:Q")),
        base.mark_line(strokeWidth=2.2).encode(y=y, detail=alt.Detail("run:N")),
        base.mark_point(filled=True, size=45 if len(study.layers) < 14 else 18, opacity=1).encode(y=y, tooltip=tooltip),
        data={"values": tidy(rows)},
    )
    facet = alt.Facet("label:N", title=None, sort=labels, header={"labelAnchor": "start", "labelPadding": 4})
    chart = layered.facet(facet, columns=3, spacing={"row": 18, "column": 18})
    words = [
        "The curves of tv_curve apart, a panel for each group, all on one scale"
        + ("; grey: all tokens." if "all" in groups else "."),
        study.intervals(rows),
        study.left_out(groups, about.measure),
        study.dumps,
    ]
    return make_figure(name, about.title.format(versus=study.versus), words, chart)

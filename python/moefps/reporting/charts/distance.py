"""How the difference of routing goes on with the distance to the tool's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from moefps._words import counted
from moefps.reporting.charts.figure import Figure, make_figure
from moefps.reporting.charts.lines import integer_ticks, interval_rows, span, tidy
from moefps.reporting.charts.study import NO_PAIRS
from moefps.reporting.theme import GREY, PAIR_STYLES

if TYPE_CHECKING:
    from moefps.reporting.charts.study import Study

__all__ = ["draw_distance", "why_no_distance"]

_WIDTH = 640
_HEIGHT, _LOW = 190, 90
_MEASURES = (
    ("tv", "mean total variation", "(share of weight)"),
    ("jaccard", "mean Jaccard index", "(share of experts)"),
)


def draw_distance(name: str, study: Study) -> Figure:
    """Draw both measures over the bins of distance, and below how many tokens each has."""
    frame = study.found.leakage_vs_distance.with_row_index("bin").with_columns(pl.col("bin").cast(pl.Int64))
    last = pl.col("distance_max").cast(pl.String)
    first = pl.col("distance_min").cast(pl.String)
    frame = frame.with_columns(distance=pl.when(last.is_null()).then(first + "+").otherwise(first + "-" + last))
    bins = frame["distance"].to_list()
    panels = []
    for measure, words, unit in _MEASURES:
        if frame[measure].is_not_null().any():
            panels.append(_panel(frame, measure, [words, unit], words, bins))
    panels.append(_tokens(frame, bins))
    chart = alt.vconcat(*panels, spacing=16)
    empty = frame.filter(pl.col("count") == 0)["distance"].to_list()
    without = len(study.summary["tasks_without_response"])
    captions = [
        "Solution without white space, token-layer pairs by their distance to the last token of the tool response.",
        study.intervals(frame.filter(pl.col("count") > 0).rename({"jaccard_lo": "lo"})),
        f"No token at {', '.join(empty)}." if empty else "",
        f"Left out, as they have no tool response: {counted(without, 'task')}." if without else "",
        study.dumps,
    ]
    title = f"Routing differences by the distance to the tool response: {study.versus}"
    return make_figure(name, title, captions, chart, letters=112)


def why_no_distance(study: Study) -> str | None:
    """Say why there is nothing to draw; None where there is."""
    if study.found.leakage_vs_distance["jaccard"].is_not_null().any():
        return None
    return "no token of the solution that is compared follows a tool response" if study.is_of_pairs else NO_PAIRS


def _axis(bins: list[str], *, labelled: bool) -> alt.X:
    """Make the axis of bins, which double in length: even steps are steps of a logarithm."""
    axis = (
        {"title": "distance to the tool response (tokens)", "labelAngle": 0, "grid": False}
        if labelled
        else {"title": None, "labels": False, "grid": False}
    )
    return alt.X("distance:O", sort=bins, scale={"domain": bins, "type": "point", "padding": 0.5}, axis=axis)


def _panel(frame: pl.DataFrame, measure: str, title: list[str], value: str, bins: list[str]) -> alt.LayerChart:
    """Draw one measure with its intervals."""
    style = PAIR_STYLES["canonical"]
    rows = interval_rows(frame.with_columns(label=pl.lit(measure)), measure, along="bin")
    rows = rows.join(frame.select("bin", "distance"), on="bin", how="left", maintain_order="left")
    scale: Any = {"domain": list(span(rows, shortest=0.01, bounds=(0.0, 1.0))), "nice": False, "zero": False}
    y = alt.Y("value:Q", scale=scale, axis={"title": title, "tickCount": 5})
    low = alt.Y("lo:Q", scale=scale)
    x = _axis(bins, labelled=False)
    base = alt.Chart({"values": tidy(rows)}, width=_WIDTH, height=_HEIGHT).encode(x=x)
    tooltip = [
        alt.Tooltip("distance:N", title="distance, tokens"),
        alt.Tooltip("value:Q", title=value, format=".4g"),
        alt.Tooltip("range:N", title="95 % interval"),
        alt.Tooltip("count:Q", title="tokens", format=","),
    ]
    return alt.LayerChart(
        layer=[
            base.transform_filter("isValid(datum.band)")
            .mark_area(color=style.color, opacity=0.2)
            .encode(y=low, y2=alt.Y2("hi:Q"), detail=alt.Detail("band:N")),
            base.transform_filter("datum.alone")
            .mark_rule(color=style.color, strokeWidth=2)
            .encode(y=low, y2=alt.Y2("hi:Q")),
            base.mark_line(color=style.color, strokeWidth=2.2, strokeDash=style.dash or [1, 0]).encode(
                y=y, detail=alt.Detail("run:N")
            ),
            base.mark_point(color=style.color, shape=style.shape, filled=True, size=70, opacity=1).encode(
                y=y, tooltip=tooltip
            ),
        ]
    )


def _tokens(frame: pl.DataFrame, bins: list[str]) -> alt.LayerChart:
    """Draw how many tokens each bin has."""
    rows = tidy(frame.select("distance", "count"))
    top = 1.25 * max(row["count"] for row in rows)
    y = alt.Y(
        "count:Q",
        scale={"domain": [0, top], "nice": False},
        axis={"title": ["tokens", "compared"], "values": integer_ticks(0, int(top), 4), "format": ",d"},
    )
    base = alt.Chart({"values": rows}, width=_WIDTH, height=_LOW).encode(x=_axis(bins, labelled=True), y=y)
    return alt.LayerChart(
        layer=[
            base.mark_bar(color=GREY, opacity=0.6, size=34).encode(
                tooltip=[
                    alt.Tooltip("distance:N", title="distance, tokens"),
                    alt.Tooltip("count:Q", title="tokens", format=","),
                ]
            ),
            base.mark_text(baseline="bottom", dy=-2).encode(text=alt.Text("count:Q", format=",")),
        ]
    )

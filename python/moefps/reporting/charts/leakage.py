"""Whether the experts that the tool's answer shifts are shifted in the solution too: a scatter for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from moefps.reporting.charts.figure import Figure, make_figure
from moefps.reporting.charts.labelling import Box, place_labels
from moefps.reporting.charts.lines import largest, tidy
from moefps.reporting.charts.study import NO_PAIRS, signed
from moefps.reporting.theme import GREY, INK, SIDES

if TYPE_CHECKING:
    from moefps.reporting.charts.study import Study

__all__ = ["draw_leakage", "leakage_layers", "why_no_leakage"]

_MOST_LAYERS = 5
_MOST_LABELS = 8
_SIZE = 440
_SURE = 0.05


def leakage_layers(study: Study) -> list[int]:
    """Give the layers with the largest correlations, the largest first."""
    ranked = study.found.tool_expert_leakage_summary
    found: list[int] = ranked.filter(pl.col("r").is_not_null()).head(_MOST_LAYERS)["layer"].to_list()
    return found


def why_no_leakage(study: Study) -> str:
    """Say why no layer has a correlation."""
    if not study.is_of_pairs:
        return NO_PAIRS
    reasons = study.found.tool_expert_leakage_summary["reason"].drop_nulls()
    return str(reasons[0]) if len(reasons) else "no layer has a correlation"


def draw_leakage(name: str, study: Study, layer: int) -> Figure:
    """Draw the experts of a layer by their shift in the tool's answer and in the solution."""
    about = study.found.tool_expert_leakage_summary.row(by_predicate=pl.col("layer") == layer, named=True)
    frame = study.found.tool_expert_leakage_by_layer.filter(pl.col("layer") == layer)
    x, y = pl.col("delta_u_tool"), pl.col("delta_u_canonical")
    ends = [_symmetric(frame[column]) for column in ("delta_u_tool", "delta_u_canonical")]
    frame = frame.with_columns(far=(x / ends[0]).pow(2) + (y / ends[1]).pow(2))
    scales: list[Any] = [{"domain": [-end, end], "nice": False, "zero": False} for end in ends]
    titles = [f"difference of usage in the {where} (share of assignments)" for where in ("tool response", "solution")]
    axis_x = alt.X("delta_u_tool:Q", scale=scales[0], axis={"title": titles[0], "tickCount": 6})
    axis_y = alt.Y("delta_u_canonical:Q", scale=scales[1], axis={"title": titles[1], "tickCount": 6})
    zero = {"values": [{"zero": 0}]}
    points = (
        alt.Chart({"values": tidy(frame.drop("far"))})
        .mark_point(filled=True, size=70, opacity=0.75, color=SIDES[1].color, stroke="white", strokeWidth=0.6)
        .encode(
            x=axis_x,
            y=axis_y,
            tooltip=[
                alt.Tooltip("expert:Q"),
                alt.Tooltip("delta_u_tool:Q", title="difference, tool response", format="+.4g"),
                alt.Tooltip("delta_u_canonical:Q", title="difference, solution", format="+.4g"),
            ],
        )
        .add_params(_zoom())
    )
    layered: list[Any] = [
        alt.Chart(zero).mark_rule(color="#BDBDBD").encode(x=alt.X("zero:Q", scale=scales[0])),
        alt.Chart(zero).mark_rule(color="#BDBDBD").encode(y=alt.Y("zero:Q", scale=scales[1])),
    ]
    if about["slope"] is not None:
        layered.append(_trend(frame, about["slope"], ends, axis_x, axis_y))
    layered += [points, *_labels(frame, ends, axis_x, axis_y)]
    chart = alt.layer(*layered).properties(width=_SIZE, height=_SIZE)
    a, b = study.names
    words = [
        _correlation(about),
        f"Each point is one of {about['n_experts']} experts; differences are {a} minus {b}.",
        "Tool response without docstrings, solution without white space.",
        "Dashed: least squares. Numbers: the experts that are farthest out.",
        study.dumps,
    ]
    title = f"Layer {layer}: shifts of usage, tool response and solution"
    return make_figure(name, title, words, chart, letters=84)


def _zoom() -> alt.Parameter:
    """Drag to move; the wheel zooms with Shift alone, so that a page can be scrolled."""
    return alt.selection_interval("zoomed", bind="scales", zoom="wheel![event.shiftKey]")


def _correlation(about: dict[str, Any]) -> str:
    """Say r, its interval and q, as far as they are there."""
    said = f"r = {signed(about['r'])}"
    if about["q"] is None:
        return f"{said}."
    if about["r_lo"] is not None:
        said += f" (95 % {signed(about['r_lo'])} to {signed(about['r_hi'])})"
    return f"{said}, q = {about['q']:.3g}" + ("." if about["q"] < _SURE else ": over experts, not told from chance.")


def _symmetric(values: pl.Series) -> float:
    """Give where an axis ends that has 0 in the middle."""
    return 1.12 * largest(values.abs()) or 0.01


def _trend(frame: pl.DataFrame, slope: float, ends: list[float], x: alt.X, y: alt.Y) -> alt.Chart:
    """Draw the line of least squares over the width of the chart."""
    means = [float(frame[column].mean() or 0.0) for column in ("delta_u_tool", "delta_u_canonical")]  # type: ignore[arg-type]
    ats = [-ends[0], ends[0]]
    line = [{"delta_u_tool": at, "delta_u_canonical": means[1] + slope * (at - means[0])} for at in ats]
    marked: Any = alt.Chart({"values": line}).mark_line(color=GREY, strokeDash=[6, 4], strokeWidth=1.5, clip=True)
    drawn: alt.Chart = marked.encode(x=x, y=y)
    return drawn


def _labels(frame: pl.DataFrame, ends: list[float], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Write the numbers of the experts that are farthest out, beside their points."""
    at = [
        (_SIZE * (1 + row["delta_u_tool"] / ends[0]) / 2, _SIZE * (1 - row["delta_u_canonical"] / ends[1]) / 2)
        for row in frame.iter_rows(named=True)
    ]
    farthest = frame.with_row_index("place").filter(pl.col("far") > 0).sort("far", descending=True).head(_MOST_LABELS)
    chosen = farthest["place"].to_list()
    placed = place_labels(at, {place: str(frame["expert"][place]) for place in chosen}, Box(0, 0, _SIZE, _SIZE))
    found = []
    for (dx, dy), places in placed.items():
        align: Any = "center" if dx == 0 else "left" if dx > 0 else "right"
        rows = tidy(frame[places].select("expert", "delta_u_tool", "delta_u_canonical"))
        base = alt.Chart({"values": rows}).encode(x=x, y=y, text=alt.Text("expert:N"))
        where: dict[str, Any] = {"align": align, "baseline": "middle", "dx": dx, "dy": dy, "fontSize": 13, "clip": True}
        # A white rim, so that the dashed line does not cross the numbers out.
        found.append(base.mark_text(**where, stroke="white", strokeWidth=3, color="white"))
        found.append(base.mark_text(**where, color=INK))
    return found

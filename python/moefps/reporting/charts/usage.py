"""How differently two conditions use each expert: a map of layers and experts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from moefps.reporting.charts.figure import Figure, make_figure
from moefps.reporting.charts.lines import in_words, integer_ticks, largest, layer_axis, tidy
from moefps.reporting.charts.study import signed
from moefps.reporting.theme import DIVERGING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps.reporting.charts.study import Study

__all__ = ["draw_usage", "expert_axis", "expert_map", "map_size", "round_up"]

_LEAST = 1e-6


def draw_usage(name: str, study: Study) -> Figure:
    """Draw the difference of usage of every expert."""
    frame = study.found.expert_usage
    sizes = frame["delta_u"].abs()
    farthest = largest(sizes)
    usual = float(sizes.quantile(0.998, "higher") or 0.0)
    # One expert that stands out must not pale all others.
    is_clamped = farthest > 2 * usual > 0
    bound = round_up(usual if is_clamped else farthest) if farthest > _LEAST else 0.01
    a, b = study.names
    more = " or beyond" if is_clamped else ""
    words = {
        bound: f"{signed(bound, 'g', plus=True)}{more}: more in {a}",
        0.0: "0: alike",
        -bound: f"{signed(-bound, 'g')}{more}: more in {b}",
    }
    ends = pl.col("delta_u_lo"), pl.col("delta_u_hi")
    chart = expert_map(
        frame.with_columns(range=in_words(*ends)).drop("delta_u_lo", "delta_u_hi"),
        study.layers,
        "delta_u",
        bound=bound,
        title=["difference of usage", "(share of assignments)"],
        words=words,
        tooltip=[
            alt.Tooltip("u_a:Q", title=f"share of assignments, {a}", format=".4g"),
            alt.Tooltip("u_b:Q", title=f"share of assignments, {b}", format=".4g"),
            alt.Tooltip("delta_u:Q", title="difference", format="+.4g"),
            alt.Tooltip("range:N", title="95 % interval"),
        ],
    )
    n_layers = frame["layer"].n_unique()
    missing = study.summary["n_layers"] - n_layers
    captions = [
        f"Share of the expert assignments of all tokens that are compared: {a} minus {b}.",
        _beyond_chance(frame),
        "Usage is the same in every layer." if farthest <= _LEAST else "",
        f"Layers where no token is compared are left out: {missing}." if missing else "",
        study.dumps,
    ]
    return make_figure(name, f"Which experts are used more, and where: {study.versus}", captions, chart)


def _beyond_chance(frame: pl.DataFrame) -> str:
    """Say for how many experts the difference is sure, and how many would seem so without any."""
    there = frame.filter(pl.col("delta_u_lo").is_not_null())
    if not there.height:
        return ""
    sure = there.filter((pl.col("delta_u_lo") > 0) | (pl.col("delta_u_hi") < 0)).height
    return (
        f"The 95 % interval of the difference leaves 0 out for {sure:,} of {there.height:,}; without any difference it "
        f"would for about {0.05 * there.height:,.0f}."
    )


def expert_map(
    frame: pl.DataFrame,
    layers: Sequence[int],
    value: str,
    *,
    bound: float,
    title: list[str],
    words: dict[float, str],
    tooltip: list[alt.Tooltip],
    size: tuple[int, int] | None = None,
) -> alt.Chart:
    """Colour every layer and expert; the middle of the colours is 0.

    Parameters
    ----------
    frame : polars.DataFrame
        ``layer``, ``expert``, the value, and what the tooltips show.
    layers : sequence of int
        All layers; where one has no rows, it is left blank.
    value : str
        The column.
    bound : float
        What has the strongest colour; all beyond it has the same.
    title : list of str
        Of the legend.
    words : dict of float to str
        What the legend says at values.
    tooltip : list of altair.Tooltip
        What is said beside layer and expert.
    size : tuple of int, optional
        Width and height in pixels; by the number of layers and experts when not given.
    """
    experts = frame["expert"].to_list()
    width, height = size or map_size(len(layers), max(experts) + 1)
    labels = "''"
    for at, word in words.items():
        quoted = word.replace("\\", "\\\\").replace("'", "\\'")
        labels = f"abs(datum.value - {at!r}) < {bound * 1e-6!r} ? '{quoted}' : {labels}"
    legend = {
        "title": title,
        "values": list(words),
        "labelExpr": labels,
        "gradientLength": min(260, height),
        "gradientThickness": 16,
        "labelLimit": 300,
    }
    cells: Any = alt.Chart({"values": tidy(frame)}, width=width, height=height).mark_rect(clip=True)
    drawn: alt.Chart = cells.transform_calculate(
        left="datum.layer - 0.5", right="datum.layer + 0.5", below="datum.expert - 0.5", above="datum.expert + 0.5"
    ).encode(
        x=layer_axis(layers, width, field="left", edge=0.5),
        x2=alt.X2("right:Q"),
        y=expert_axis(experts, height),
        y2=alt.Y2("above:Q"),
        color=alt.Color(
            f"{value}:Q",
            scale={"domain": [-bound, -bound / 2, 0, bound / 2, bound], "range": list(DIVERGING), "clamp": True},
            legend=legend,
        ),
        tooltip=[alt.Tooltip("layer:Q"), alt.Tooltip("expert:Q"), *tooltip],
    )
    return drawn


def expert_axis(experts: Sequence[int], height: float) -> alt.Y:
    """Make the vertical axis of a map."""
    first, last = min(experts), max(experts)
    return alt.Y(
        "below:Q",
        scale={"domain": [first - 0.5, last + 0.5], "nice": False, "zero": False},
        axis={"title": "expert", "values": integer_ticks(first, last, height / 21), "format": "d", "grid": False},
    )


def map_size(n_layers: int, n_experts: int, *, widest: int = 640, highest: int = 640) -> tuple[int, int]:
    """Choose the size of a map: cells that can be seen, within a page."""
    return max(160, min(widest, 60 * n_layers)), max(160, min(highest, 22 * n_experts))


def round_up(value: float) -> float:
    """Round up to two digits.

    Examples
    --------
    >>> round_up(0.01191), round_up(0.5)
    (0.012, 0.5)
    """
    size = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(round(value / size, 6)) * size:.2g}")

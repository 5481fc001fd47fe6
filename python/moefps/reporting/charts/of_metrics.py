"""Routing metrics as charts: load of experts, metrics over layers, experts that are hardly used."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from moefps._words import listed
from moefps.metrics.registry import find_metric
from moefps.reporting.charts.figure import Figure, make_figure
from moefps.reporting.charts.lines import (
    Key,
    curves,
    integer_ticks,
    interval_rows,
    largest,
    layer_axis,
    legend_selection,
    span,
    tidy,
)
from moefps.reporting.charts.study import MOST_LINES, labels_of, plain
from moefps.reporting.charts.usage import expert_axis, expert_map, map_size
from moefps.reporting.theme import GREY, INK, styles_in_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps.metrics import RoutingMetrics

__all__ = ["draw_load", "draw_over_layers", "draw_unused"]

_MOST_MAPS = 6
_PANEL = (236, 150)
_SHOWN = (
    *("expert_activation_entropy", "load_balancing_coefficient", "gini_coefficient", "min_max_expert_load_ratio"),
    *("maxvio", "top_k_entropy", "routing_entropy", "expert_overlap", "sequential_routing_consistency"),
)
"""Where nothing has a target."""
_DOUBLINGS = (0.25, 0.5, 1.0, 2.0, 3.0)
"""What may have the strongest colour; what is beyond eight times the load, or an eighth, has the same."""

_KINDS = {"never chosen": INK, "seldom chosen": "#E69F00"}


def draw_load(metrics: RoutingMetrics) -> Figure | None:
    """Draw how much more or less than its share each expert gets."""
    frame = _loads(metrics)
    if frame is None:
        return None
    groups, left_out = _groups(frame, _MOST_MAPS)
    drawn = frame if groups is None else frame.filter(pl.col("group").is_in(groups))
    farthest = largest(drawn["doublings"].abs())
    bound = next((step for step in _DOUBLINGS if farthest <= step), _DOUBLINGS[-1])
    more = " or beyond" if farthest > bound else ""
    times = f"{2**bound:.3g}"
    words = {bound: f"{times} times{more}", 0.0: "as at balance", -bound: f"1/{times}{more}"}
    layers = _layers(drawn)

    def draw(part: pl.DataFrame, size: tuple[int, int] | None) -> Any:
        cells = expert_map(
            part.filter(pl.col("doublings").is_not_null()),
            layers,
            "doublings",
            bound=bound,
            title=["load of the expert", "(multiples of balance)"],
            words=words,
            tooltip=[
                alt.Tooltip("relative:Q", title="multiple of balance", format=".4g"),
                alt.Tooltip("share:Q", title="share of assignments", format=".4g"),
            ],
            size=size,
        )
        return _with_dead(cells, part, layers, size or map_size(len(layers), int(largest(part["expert"])) + 1))

    labels = labels_of(groups or [])

    if groups is None:
        chart = draw(drawn, None)
    else:
        size = map_size(len(layers), int(largest(drawn["expert"])) + 1, widest=300, highest=260)
        parts = [
            draw(drawn.filter(pl.col("group") == group), size).properties(title=_heading(labels[group]))
            for group in groups
        ]
        chart = alt.concat(*parts, columns=2, spacing=24)
    captions = [
        "Balance: every expert of a layer gets the same share of the assignments.",
        "Black: never chosen." if (drawn["share"] == 0).any() else "",
        left_out,
    ]
    return make_figure("expert_load", "Load of every expert, against an even load", captions, chart)


def _loads(metrics: RoutingMetrics) -> pl.DataFrame | None:
    """Give ``share``, ``relative`` to an even load, and ``doublings`` of it, of every expert."""
    frame = metrics.experts
    for name in ("expert_activation_counts", "expert_weighted_counts", "expert_token_proportions"):
        if name in frame.columns and frame[name].is_not_null().any():
            break
    else:
        return None
    outer = [name for name in ("group", "layer") if name in frame.columns]
    load = pl.col(name).cast(pl.Float64)
    share = pl.when(load.sum().over(outer) > 0).then(load / load.sum().over(outer))
    frame = frame.select(*outer, "expert", share=share, size=load.sum().over(outer))
    frame = frame.filter(pl.col("share").is_not_null())
    frame = frame.with_columns(relative=pl.col("share") * pl.len().over(outer))
    doublings = pl.when(pl.col("share") > 0).then(pl.col("relative").log(2))
    return frame.with_columns(doublings=doublings) if frame.height else None


def _with_dead(cells: alt.Chart, frame: pl.DataFrame, layers: Sequence[int], size: tuple[int, int]) -> Any:
    """Blacken the experts that were never chosen."""
    dead = frame.filter(pl.col("share") == 0)
    if not dead.height:
        return cells
    marked: Any = alt.Chart({"values": tidy(dead.select("layer", "expert"))}).mark_rect(color=INK)
    marked = marked.transform_calculate(
        left="datum.layer - 0.5", right="datum.layer + 0.5", below="datum.expert - 0.5", above="datum.expert + 0.5"
    ).encode(
        x=layer_axis(layers, size[0], field="left", edge=0.5),
        x2=alt.X2("right:Q"),
        # As for the others: an axis of its own would drop numbers of theirs.
        y=expert_axis(frame["expert"].to_list(), size[1]),
        y2=alt.Y2("above:Q"),
        tooltip=[alt.Tooltip("layer:Q"), alt.Tooltip("expert:Q")],
    )
    return alt.layer(cells, marked)


def draw_over_layers(metrics: RoutingMetrics) -> Figure | None:
    """Draw the metrics that have a target, a panel each; where none has one, those that tell most."""
    frame = metrics.layers.filter(pl.col("value").is_not_null() & pl.col("value").is_finite())
    judged = frame.filter(pl.col("threshold").is_not_null())["metric"].unique(maintain_order=True).to_list()
    there = set(frame["metric"].to_list())
    names = judged or [name for name in _SHOWN if name in there]
    if not names:
        return None
    groups, left_out = _groups(frame, MOST_LINES)
    if groups is not None:
        frame = frame.filter(pl.col("group").is_in(groups))
    labels = labels_of(groups or [])
    label = pl.col("group").replace_strict(labels, return_dtype=pl.String) if labels else pl.lit("value")
    frame = frame.with_columns(label=label)
    keys = list(labels.values()) or ["value"]
    styles = styles_in_turn(["all"] if groups is None else keys)
    key = Key(plain(metrics.about.get("by") or "group"), keys, list(styles.values()))
    layers = _layers(metrics.layers)
    picked = legend_selection()
    level = _level(metrics)
    panels = [
        _panel(frame.filter(pl.col("metric") == name), key, layers, picked, level, owner=place == 0)
        for place, name in enumerate(names)
    ]
    chart = alt.concat(*panels, columns=3, spacing={"row": 24, "column": 26})
    has_intervals = frame["lo"].is_not_null().any()
    captions = [
        "Dashed: the target." if judged else "There are no targets.",
        f"Bands: {level}s, over samples." if has_intervals else "",
        left_out,
    ]
    title = "Metrics that have a target, layer by layer" if judged else "Routing metrics, layer by layer"
    return make_figure("metrics_over_layers", title, captions, chart)


def _panel(
    frame: pl.DataFrame, key: Key, layers: Sequence[int], picked: alt.Parameter, level: str, *, owner: bool
) -> Any:
    """Draw one metric."""
    name = str(frame["metric"][0])
    rows = interval_rows(frame.rename({"lo": "value_lo", "hi": "value_hi"}), "value")
    target = frame.filter(pl.col("threshold").is_not_null()).unique("layer", keep="first", maintain_order=True)
    behind: list[Any] = []
    held = rows.select("value", "lo", "hi")
    words: Any = name.replace("_", " ")
    title = _heading(words)
    if target.height:
        limit = pl.col("threshold").cast(pl.Float64)
        held = pl.concat([held, target.select(value=limit, lo=limit, hi=limit)])
        met = frame["met"].drop_nulls()
        text = str(target["target"][0]).replace(">=", "≥").replace("<=", "≤")
        times = " layers" if len(key.labels) == 1 else ""
        title = _heading(words, f"target {text}: met in {met.sum()} of {met.len()}{times}")
        behind.append(_target(target, layers))
    width, height = _PANEL
    chart = curves(
        rows,
        key,
        layers,
        y=find_metric(name).unit or None,
        value=words,
        ends=span(held, shortest=1e-6),
        width=width,
        height=height,
        legend=len(key.labels) > 1,
        behind=behind,
        picked=picked,
        owner=owner,
        interval=level,
    )
    return chart.properties(title=title)


def _heading(text: str, below: str = "") -> alt.TitleParams:
    """Head a panel."""
    lines = textwrap.wrap(below, 38) or alt.Undefined
    return alt.TitleParams(
        text=text, subtitle=lines, fontSize=14, subtitleFontSize=13, anchor="start", offset=6, subtitlePadding=3
    )


def _target(target: pl.DataFrame, layers: Sequence[int]) -> Any:
    """Draw the threshold of every layer, from edge to edge where there is one layer alone."""
    rows = tidy(target.select("layer", "threshold", "target"))
    if len(rows) == 1 or target["threshold"].n_unique() == 1:
        drawn: Any = alt.Chart({"values": rows[:1]}).mark_rule(color=GREY, strokeDash=[5, 4], strokeWidth=1.6)
        return drawn.encode(y=alt.Y("threshold:Q"))
    stepped: Any = alt.Chart({"values": rows}).mark_line(color=GREY, strokeDash=[5, 4], strokeWidth=1.6)
    return stepped.encode(x=layer_axis(layers), y=alt.Y("threshold:Q"))


def draw_unused(metrics: RoutingMetrics) -> Figure | None:
    """Draw how many experts of each layer are never chosen, or seldom."""
    words = dict(zip(("dead_experts", "underused_experts"), _KINDS, strict=True))
    frame = metrics.layers.filter(pl.col("metric").is_in(list(words)) & pl.col("value").is_not_null())
    if not frame.height or not frame["value"].sum():
        return None
    groups, left_out = _groups(frame, _MOST_MAPS)
    if groups is not None:
        frame = frame.filter(pl.col("group").is_in(groups))
    outer = [name for name in ("group", "layer") if name in frame.columns]
    wide = frame.pivot(on="metric", index=outer, values="value")
    wide = wide.with_columns(pl.lit(0.0).alias(name) for name in words if name not in wide.columns)
    # What is never chosen is seldom chosen, too: counted once.
    wide = wide.with_columns(underused_experts=pl.col("underused_experts") - pl.col("dead_experts"))
    lists = frame.filter(pl.col("metric") == "underused_experts").select(*outer, experts=pl.col("text").fill_null(""))
    long = wide.unpivot(on=list(words), index=outer, variable_name="metric", value_name="number")
    long = long.join(lists, on=outer, how="left").with_columns(
        kind=pl.col("metric").replace(words), place=pl.col("metric").eq("underused_experts").cast(pl.Int64)
    )
    layers = _layers(metrics.layers)
    kinds = [word for word in words.values() if long.filter(pl.col("kind") == word)["number"].sum()]
    chart = _bars(long, layers, kinds, (300, 150) if groups is not None else (640, 260))
    if groups is not None:
        labels = labels_of(groups)
        named = long.with_columns(pl.col("group").replace_strict(labels, return_dtype=pl.String))
        header = {"labelAnchor": "start", "labelPadding": 4}
        facet = alt.Facet("group:N", title=None, sort=list(labels.values()), header=header)
        chart = chart.properties(data={"values": tidy(named)}).facet(facet, columns=2)
    else:
        chart = chart.properties(data={"values": tidy(long)})
    captions = ["Seldom: less than half of its share at balance, those that are never chosen not counted.", left_out]
    return make_figure("unused_experts", "Experts that are never or seldom chosen, by layer", captions, chart)


def _bars(long: pl.DataFrame, layers: Sequence[int], kinds: list[str], size: tuple[int, int]) -> Any:
    """Stack the two kinds of experts for every layer."""
    outer = [name for name in ("group", "layer") if name in long.columns]
    top = largest(long.group_by(outer).agg(pl.col("number").sum())["number"])
    width, height = size
    bars: Any = alt.Chart(width=width, height=height).mark_bar(size=max(2, min(30, int(0.7 * width / len(layers)))))
    return bars.encode(
        x=layer_axis(layers, width, edge=0.6),
        y=alt.Y(
            "number:Q",
            scale={"domain": [0, top * 1.05], "nice": False},
            axis={"title": "experts", "format": "d", "values": integer_ticks(0, int(top), 6)},
        ),
        color=alt.Color(
            "kind:N",
            scale={"domain": kinds, "range": [_KINDS[kind] for kind in kinds]},
            legend={"title": None},
        ),
        order=alt.Order("place:Q"),
        tooltip=[
            alt.Tooltip("layer:Q"),
            alt.Tooltip("kind:N", title="experts"),
            alt.Tooltip("number:Q", title="number", format=",d"),
            alt.Tooltip("experts:N", title="never or seldom chosen"),
        ],
    )


def _groups(frame: pl.DataFrame, most: int) -> tuple[list[Any] | None, str]:
    """Give the groups that are drawn, None where there are none, and what is said of the others."""
    if "group" not in frame.columns:
        return None, ""
    there = frame["group"].unique(maintain_order=True).to_list()
    if len(there) <= most:
        return there, ""
    return there[
        :most
    ], f"Only the first {most} of {len(there)} groups; left out: {listed([plain(name) for name in there[most:]])}."


def _layers(frame: pl.DataFrame) -> list[int]:
    """Give all layers from the first to the last."""
    there = frame["layer"].to_list()
    return list(range(min(there), max(there) + 1))


def _level(metrics: RoutingMetrics) -> str:
    """Say what the intervals are."""
    about = metrics.about.get("ci")
    level = about.get("level") if isinstance(about, dict) else None
    return "interval" if level is None else f"{100 * level:.4g} % interval"

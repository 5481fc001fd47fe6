"""Means over layers as lines, with their intervals as bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import polars as pl

from moefps.reporting.theme import GREY, HEIGHT, WIDTH, Style

__all__ = [
    "Key",
    "curves",
    "in_words",
    "integer_ticks",
    "interval_rows",
    "largest",
    "layer_axis",
    "legend_selection",
    "rule_at",
    "span",
    "tidy",
]

_TICK = 38
"""Pixels that a tick of the horizontal axis needs, with its number."""
_MOST_SYMBOLS = 13
_DIGITS = 7


class Key(NamedTuple):
    """What the lines of a chart stand for.

    Attributes
    ----------
    title : str
        Of the legend.
    labels : list of str
        The lines, in order.
    styles : list of Style
        Their looks.
    field : str
        What the data calls them. Two legends of one figure need two: a click on one would dim the lines of both.
    """

    title: str
    labels: list[str]
    styles: list[Style]
    field: str = "label"


def tidy(frame: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    """Give rows for a chart: seven digits are more than anybody sees, and what is null is not there.

    They are a tuple, as altair copies lists again and again while a chart is put together.
    """
    frame = frame.with_columns(pl.col(pl.Float64).round_sig_figs(_DIGITS))
    rows = frame.iter_rows(named=True)
    return tuple({name: value for name, value in row.items() if value is not None} for row in rows)


def interval_rows(frame: pl.DataFrame, measure: str, *, along: str = "layer") -> pl.DataFrame:
    """Give the rows of a measure that have a value, with what a chart needs to leave gaps where there is none.

    Parameters
    ----------
    frame : polars.DataFrame
        ``label``, `along` (whole numbers), the measure, it with ``_lo`` and ``_hi``, and perhaps ``count``.
    measure : str
        The column.
    along : str
        What the horizontal axis shows.

    Returns
    -------
    polars.DataFrame
        ``label``, `along`, ``count``, ``value``, ``lo``, ``hi``, ``range`` (the interval in words), ``run`` (stretches
        without a gap), ``band`` (the same of intervals, null where there is none), ``alone`` (the interval has no
        neighbour, and makes no band).
    """
    lo, hi = pl.col(f"{measure}_lo"), pl.col(f"{measure}_hi")
    more = [name for name in ("count",) if name in frame.columns]
    rows = frame.select("label", along, *more, value=pl.col(measure), lo=lo, hi=hi, range=in_words(lo, hi))
    rows = rows.filter(pl.col("value").is_not_null())
    rows = rows.sort("label", along, maintain_order=True)
    step = (pl.col(along) != pl.col(along).shift(1) + 1).fill_null(value=True)
    rows = rows.with_columns(run=step.cum_sum().over("label"))
    has = pl.col("lo").is_not_null()
    begins = step | (has != has.shift(1)).fill_null(value=True)
    rows = rows.with_columns(band=pl.when(has).then(begins.cum_sum().over("label")))
    return rows.with_columns(alone=pl.col("band").is_not_null() & (pl.len().over("label", "band") == 1))


def largest(values: pl.Series) -> float:
    """Give the largest value, 0 where there is none."""
    return float(max(values.drop_nulls().to_list(), default=0.0))


def in_words(lo: pl.Expr, hi: pl.Expr) -> pl.Expr:
    """Write intervals as tooltips have them: a format for numbers would turn null into 0."""
    lo, hi = (
        end.round_sig_figs(4).cast(pl.String).str.replace("-", "\N{MINUS SIGN}", literal=True) for end in (lo, hi)
    )
    return pl.when(lo.is_null() | hi.is_null()).then(pl.lit("none")).otherwise(lo + pl.lit(" to ") + hi)


def integer_ticks(first: int, last: int, most: float = 16) -> list[int]:
    """Choose whole numbers for an axis, at even steps.

    Examples
    --------
    >>> integer_ticks(0, 5), integer_ticks(0, 47)
    ([0, 1, 2, 3, 4, 5], [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44])
    """
    width = max(1, math.ceil((last - first + 1) / max(most, 2)))
    step = next(size for size in _steps() if size >= width)
    start = first if first % step == 0 else first + step - first % step
    return list(range(start, last + 1, step)) or [first]


def _steps() -> Any:
    size = 1
    while True:
        yield from (size, 2 * size, 4 * size, 5 * size)
        size *= 10


def layer_axis(
    layers: Sequence[int], width: float = WIDTH, *, field: str = "layer", edge: float | None = None
) -> alt.X:
    """Make the horizontal axis of layers: whole numbers, also where there is only one."""
    first, last = min(layers), max(layers)
    room = max(0.3, 0.02 * (last - first)) if edge is None else edge
    return alt.X(
        f"{field}:Q",
        scale={"domain": [first - room, last + room], "nice": False, "zero": False},
        axis={"title": "layer", "values": integer_ticks(first, last, width / _TICK), "format": "d", "grid": False},
    )


def span(
    frame: pl.DataFrame,
    *,
    zero: bool = False,
    shortest: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Give the ends of a vertical axis that holds all values and intervals, with some room.

    Parameters
    ----------
    frame : polars.DataFrame
        ``value``, ``lo``, ``hi``.
    zero : bool
        True has 0 on it.
    shortest : float
        How long it is at least, so that values that are all the same have an axis too.
    bounds : tuple of float
        What no value is below or above: the axis goes hardly farther.

    Examples
    --------
    >>> span(pl.DataFrame({"value": [0.0], "lo": [0.0], "hi": [0.0]}), zero=True, shortest=0.01, bounds=(0.0, 1.0))
    (0.0, 0.0105)
    """
    ends = pl.concat([frame["value"], frame["lo"], frame["hi"]]).drop_nulls().to_list()
    low, high = min(ends), max(ends)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < shortest:
        low, high = (high - shortest, high) if low + shortest > bounds[1] else (low, low + shortest)
    room = 0.05 * (high - low)
    ends = [low - room, high + room]
    if low >= bounds[0] > ends[0]:
        ends[0] = bounds[0]
    if high <= bounds[1] < ends[1]:
        # Symbols at the very top would be cut in half by a title.
        ends[1] = bounds[1] + 0.2 * room
    return ends[0], ends[1]


def legend_selection(name: str = "picked", field: str = "label") -> alt.Parameter:
    """Make what a click on a line of the legend sets; one that altair names itself is never called the same twice."""
    return alt.selection_point(name, fields=[field], bind="legend")


def curves(
    rows: pl.DataFrame,
    key: Key,
    layers: Sequence[int],
    *,
    y: str | None,
    value: str,
    ends: tuple[float, float],
    width: int = WIDTH,
    height: int = HEIGHT,
    legend: bool = True,
    behind: Sequence[Any] = (),
    interval: str = "95 % interval",
    picked: alt.Parameter | None = None,
    owner: bool = True,
) -> alt.LayerChart:
    """Draw lines with bands; a click on the legend dims the others.

    Parameters
    ----------
    rows : polars.DataFrame
        As `interval_rows` gives them.
    key : Key
        What the lines are.
    layers : sequence of int
        All layers, also those without a value.
    y : str or None
        Title of the vertical axis, with its unit.
    value : str
        What tooltips call the value.
    ends : tuple of float
        Of the vertical axis.
    width, height : int
        In pixels.
    legend : bool
        Whether there is one.
    behind : sequence of altair charts
        What is drawn first.
    interval : str
        What tooltips call it.
    picked : altair.Parameter, optional
        Of `legend_selection`, where several charts share a legend.
    owner : bool
        Whether it belongs to this chart; of several that share it, one does.
    """
    every = max(1, math.ceil(len(layers) / _MOST_SYMBOLS))
    rows = rows.with_columns(symbol=(pl.col("layer") % every == 0) | (pl.len().over("label", "run") == 1))
    # The more bands, the fainter each, or they hide one another.
    faint = 0.22 if len(key.labels) < 4 else 0.14 if len(key.labels) < 8 else 0.1
    color, dash, shape = _looks(key, legend=legend)
    picked = picked or legend_selection(field=key.field)
    bright: Any = alt.when(picked)
    base = alt.Chart({"values": tidy(rows.rename({"label": key.field}))}, width=width, height=height).encode(
        x=layer_axis(layers, width), color=color
    )
    axis = alt.Y(
        "value:Q",
        scale={"domain": list(ends), "nice": False, "zero": False},
        axis={"title": y, "tickCount": max(4, height // 45)},
    )
    low = alt.Y("lo:Q", title=y, scale={"domain": list(ends), "nice": False, "zero": False})
    tooltip = [
        alt.Tooltip(f"{key.field}:N", title=key.title),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("value:Q", title=value, format=".4g"),
        alt.Tooltip("range:N", title=interval),
    ]
    if "count" in rows.columns:
        tooltip.append(alt.Tooltip("count:Q", title="tokens", format=","))
    layered: list[Any] = [
        base.transform_filter("isValid(datum.band)")
        .mark_area()
        .encode(
            y=low,
            y2=alt.Y2("hi:Q"),
            detail=alt.Detail("band:N"),
            opacity=bright.then(alt.value(faint)).otherwise(alt.value(0.03)),
        ),
        base.transform_filter("datum.alone")
        .mark_rule(strokeWidth=2)
        .encode(y=low, y2=alt.Y2("hi:Q"), opacity=bright.then(alt.value(0.6)).otherwise(alt.value(0.05))),
        base.mark_line(strokeWidth=2.2).encode(
            y=axis,
            detail=alt.Detail("run:N"),
            strokeDash=dash,
            opacity=bright.then(alt.value(1)).otherwise(alt.value(0.12)),
        ),
        # Every value answers to the mouse, also where its symbol is not drawn.
        base.mark_point(filled=True, size=55).encode(
            y=axis,
            shape=shape,
            tooltip=tooltip,
            opacity=alt.when("!datum.symbol")
            .then(alt.value(0))
            .when(picked)
            .then(alt.value(1))
            .otherwise(alt.value(0.12)),
        ),
    ]
    if owner:
        layered[-1] = layered[-1].add_params(picked)
    return alt.LayerChart(layer=[*behind, *layered])


def rule_at(value: float) -> alt.Chart:
    """Draw a line across."""
    drawn: alt.Chart = (
        alt.Chart({"values": [{"at": value}]}).mark_rule(color=GREY, strokeWidth=1).encode(y=alt.Y("at:Q"))
    )
    return drawn


def _looks(key: Key, *, legend: bool) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    """Tell lines apart by colour, dash and symbol, with one legend for all three."""
    # The legend shows the symbols filled: an outline would be dashed as the line is.
    about: Any = (
        {"title": key.title, "symbolOpacity": 1, "symbolStrokeWidth": 0, "symbolDash": [1, 0]} if legend else None
    )
    colors, dashes, shapes = zip(*((of.color, of.dash or [1, 0], of.shape) for of in key.styles), strict=True)
    return (
        alt.Color(f"{key.field}:N", scale={"domain": key.labels, "range": list(colors)}, legend=about),
        alt.StrokeDash(f"{key.field}:N", scale={"domain": key.labels, "range": list(dashes)}, legend=about),
        alt.Shape(f"{key.field}:N", scale={"domain": key.labels, "range": list(shapes)}, legend=about),
    )

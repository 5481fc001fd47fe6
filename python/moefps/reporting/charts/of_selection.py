"""A selection as charts: how well the picks cover the samples, and what they stand for."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from moefps._words import listed
from moefps.reporting.charts.figure import Figure, make_figure
from moefps.reporting.charts.lines import integer_ticks, largest, tidy
from moefps.reporting.charts.study import labels_of, plain
from moefps.reporting.theme import PAIR_STYLES, WIDTH

__all__ = ["draw_clusters", "draw_labels", "draw_radius", "label_column"]

_BLUE = PAIR_STYLES["canonical"].color
_HEIGHT = 300
_MOST_LABELS = 20
_MANY = 150
_OWN = ("rank", "index", "radius", "cluster_size", "typicality")


def draw_radius(picks: pl.DataFrame) -> Figure | None:
    """Draw the covering radius after every pick."""
    if not picks["radius"].is_not_null().any():
        return None
    base = alt.Chart({"values": _rows(picks)}, width=WIDTH, height=_HEIGHT)
    y = alt.Y(
        "radius:Q",
        scale={"domain": [0, 1.05 * (largest(picks["radius"]) or 1.0)], "nice": False},
        axis={"title": "covering radius (distance)"},
    )
    x = _ranks(picks, log=picks.height > _MANY)
    line = base.mark_line(color=_BLUE, strokeWidth=2.2, interpolate="step-after").encode(x=x, y=y)
    point = base.mark_point(color=_BLUE, filled=True, size=45 if picks.height < 60 else 14, opacity=1).encode(
        x=x, y=y, tooltip=_tooltip(picks)
    )
    caption = "The largest distance of any sample to its nearest pick, after each pick; it never rises."
    return make_figure("covering_radius", "How well the picks cover the samples", [caption], alt.layer(line, point))


def draw_clusters(picks: pl.DataFrame) -> Figure | None:
    """Draw how many samples each pick is the nearest of."""
    if not picks["cluster_size"].is_not_null().any():
        return None
    base: Any = alt.Chart({"values": _rows(picks)}, width=WIDTH, height=_HEIGHT)
    if picks.height > _MANY:
        # As many bars would be one block.
        base = base.mark_point(color=_BLUE, filled=True, size=16, opacity=0.6)
    else:
        base = base.mark_bar(color=_BLUE, size=max(1.0, min(30.0, 0.75 * WIDTH / picks.height)))
    ticks = integer_ticks(0, int(largest(picks["cluster_size"])), 8)
    y = alt.Y("cluster_size:Q", axis={"title": "samples nearest to the pick", "format": ",d", "values": ticks})
    chart = base.encode(x=_ranks(picks), y=y, tooltip=_tooltip(picks))
    caption = "The pick itself is counted."
    return make_figure("cluster_sizes", "How many samples each pick stands for", [caption], chart)


def draw_labels(picks: pl.DataFrame) -> Figure | None:
    """Draw how many picks have each label, where there is a column of labels."""
    column = label_column(picks)
    if column is None:
        return None
    counted = (
        picks.select(label=pl.col(column).cast(pl.String).fill_null("(none)"), size="cluster_size")
        .group_by("label", maintain_order=True)
        .agg(picks=pl.len(), samples=pl.col("size").sum())
        .sort("picks", descending=True, maintain_order=True)
    )
    labels = labels_of(counted["label"].to_list())
    left_out = list(labels.values())[_MOST_LABELS:]
    names = list(labels.values())[:_MOST_LABELS]
    most = largest(counted["picks"])
    counted = counted.head(_MOST_LABELS).with_columns(label=pl.Series(names, dtype=pl.String))
    base = alt.Chart({"values": tidy(counted)}, width=WIDTH - 100, height=max(60, 26 * counted.height)).encode(
        y=alt.Y("label:N", sort=names, axis={"title": plain(column), "labelLimit": 280, "maxExtent": 300}),
        x=alt.X(
            "picks:Q",
            scale={"domain": [0, 1.1 * most], "nice": False},
            axis={"title": "picks", "format": ",d", "values": integer_ticks(0, int(most), 8)},
        ),
        tooltip=[
            alt.Tooltip("label:N", title=plain(column)),
            alt.Tooltip("picks:Q", format=",d"),
            alt.Tooltip("samples:Q", title="samples nearest to them", format=",d"),
        ],
    )
    chart = alt.layer(
        base.mark_bar(color=_BLUE, size=17),
        base.mark_text(align="left", dx=4, baseline="middle").encode(text=alt.Text("picks:Q", format=",d")),
    )
    caption = f"Left out, as they have the fewest picks: {listed(left_out)}." if left_out else ""
    return make_figure("picks_by_label", f"Picks by {plain(column)}", [caption], chart)


def label_column(picks: pl.DataFrame) -> str | None:
    """Choose the column that tells kinds of samples apart: ``label``, or the first text that repeats itself.

    Examples
    --------
    >>> frame = pl.DataFrame({"rank": [1, 2, 3, 4], "text": list("abcd"), "domain": ["law", "code", "law", "law"]})
    >>> label_column(frame)
    'domain'
    """
    for name in sorted(picks.columns, key=lambda name: name != "label"):
        text = picks[name].dtype in {pl.String, pl.Categorical, pl.Enum, pl.Boolean}
        if name in _OWN or not (text or name == "label"):
            continue
        different = picks[name].n_unique()
        if name == "label" or 1 < different <= max(1, picks.height // 2):
            return name
    return None


def _ranks(picks: pl.DataFrame, *, log: bool = False) -> alt.X:
    """Make the axis of picks in their order."""
    last = int(largest(picks["rank"]))
    if log:
        return alt.X(
            "rank:Q",
            scale={"type": "log", "domain": [0.9, 1.1 * last], "nice": False},
            axis={"title": "pick (logarithmic)", "values": [10**i for i in range(7)], "format": ",d", "grid": False},
        )
    room = max(0.6, 0.02 * last)
    return alt.X(
        "rank:Q",
        scale={"domain": [1 - room, last + room], "nice": False, "zero": False},
        axis={"title": "pick", "values": integer_ticks(1, last, WIDTH / 50), "format": ",d", "grid": False},
    )


def _rows(picks: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    label = _named(picks)
    columns = ["rank", "index", "radius", "cluster_size"]
    named = (
        []
        if label is None
        else [pl.col(label).cast(pl.String).map_elements(plain, return_dtype=pl.String).alias("name")]
    )
    return tidy(picks.select(*columns, *named))


def _tooltip(picks: pl.DataFrame) -> list[alt.Tooltip]:
    label = _named(picks)
    named = [] if label is None else [alt.Tooltip("name:N", title=plain(label))]
    return [
        alt.Tooltip("rank:Q", title="pick", format=",d"),
        alt.Tooltip("index:Q", title="sample", format=",d"),
        *named,
        alt.Tooltip("radius:Q", title="covering radius", format=".4g"),
        alt.Tooltip("cluster_size:Q", title="samples nearest to it", format=",d"),
    ]


def _named(picks: pl.DataFrame) -> str | None:
    """Choose a column that says which sample it is."""
    return next((name for name in ("name", "id", "task_id") if name in picks.columns), label_column(picks))

"""How charts look: colours that colour-blind readers can tell apart, sizes that stay readable at half size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = [
    "CONFIG",
    "DIVERGING",
    "FONT",
    "GREY",
    "HEIGHT",
    "INK",
    "PAIR_STYLES",
    "SIDES",
    "WIDTH",
    "Style",
    "styles_in_turn",
]

FONT = "sans-serif"
"""The generic family: vl-convert brings a font for it, and browsers have one."""
INK = "#262626"
GREY = "#767676"
WIDTH, HEIGHT = 620, 360
"""Of a chart of one panel, in pixels at scale 1, without axes and legend."""

# The palette of Okabe and Ito (2008, "Color Universal Design"); its yellow is too pale for lines on white.
_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
_BLUE, _VERMILLION, _PURPLE = "#0072B2", "#D55E00", "#CC79A7"
_VIOLET = "#5D3A9B"
"""For what is rarely compared: dark where its neighbours are light."""

DIVERGING = ("#00497A", "#5B9FCB", "#F7F7F7", "#E8925A", "#8F3A00")
"""From less to more, the middle in the middle: blue to vermillion."""

_SOLID: list[int] = []
_DASHES = (_SOLID, [7, 3], [2, 2], [9, 3, 2, 3])
_STAR = "M0,-1L0.3,-0.3L1,0L0.3,0.3L0,1L-0.3,0.3L-1,0L-0.3,-0.3Z"
_SHAPES = ("square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left", _STAR)


class Style(NamedTuple):
    """How one line of several is told from the others: never by its colour alone."""

    color: str
    dash: list[int]
    shape: str


SIDES = (Style(_VERMILLION, _SOLID, "circle"), Style(_BLUE, [7, 3], "square"))
"""A and B."""

PAIR_STYLES = {
    "all": Style(_BLACK, _SOLID, "circle"),
    "canonical": Style(_BLUE, _SOLID, "square"),
    "canonical_non_ws": Style(_SKY, [7, 3], "diamond"),
    "tool_schema": Style(_VIOLET, [2, 2], "triangle-right"),
    "tool_call": Style(_VIOLET, [9, 3, 2, 3], "triangle-left"),
    "tool_response": Style(_VERMILLION, _SOLID, "triangle-up"),
    "tool_response_docstring": Style(_ORANGE, [7, 3], "triangle-down"),
    "tool_response_non_docstring": Style(_PURPLE, [2, 2], "cross"),
    "user_prompt": Style(_GREEN, [9, 3, 2, 3], _STAR),
}
"""The groups of pairs keep their looks in every chart."""

_IN_TURN = (_BLUE, _VERMILLION, _GREEN, _ORANGE, _PURPLE, _SKY)


def styles_in_turn(names: Sequence[str]) -> dict[str, Style]:
    """Give every name a look; ``all`` is black.

    Examples
    --------
    >>> styles_in_turn(["all", "code"])["code"].color
    '#0072B2'
    """
    found = {"all": Style(_BLACK, _SOLID, "circle")} if "all" in names else {}
    for place, name in enumerate(name for name in names if name != "all"):
        color = _IN_TURN[place % len(_IN_TURN)]
        found[name] = Style(color, _DASHES[place % len(_DASHES)], _SHAPES[place % len(_SHAPES)])
    return found


CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "white",
    "padding": 14,
    "title": {
        "anchor": "start",
        "frame": "group",
        "fontSize": 18,
        "fontWeight": 600,
        "color": INK,
        "subtitleFontSize": 13,
        "subtitleColor": "#4D4D4D",
        "subtitleLineHeight": 18,
        "subtitlePadding": 6,
        "lineHeight": 23,
        "offset": 16,
    },
    "axis": {
        "labelFontSize": 14,
        "titleFontSize": 14,
        "titleFontWeight": 500,
        "labelColor": INK,
        "titleColor": INK,
        "titlePadding": 10,
        "domainColor": "#8C8C8C",
        "tickColor": "#8C8C8C",
        "gridColor": "#E6E6E6",
    },
    "legend": {
        "labelFontSize": 14,
        "titleFontSize": 14,
        "titleFontWeight": 500,
        "labelColor": INK,
        "titleColor": INK,
        "labelLimit": 260,
        "titleLimit": 260,
        "symbolSize": 130,
        "symbolStrokeWidth": 2.5,
        "rowPadding": 5,
    },
    "header": {"labelFontSize": 14, "titleFontSize": 14, "labelColor": INK, "titleColor": INK, "labelFontWeight": 600},
    "view": {"stroke": None},
    "text": {"fontSize": 13, "color": INK},
}
"""Vega-Lite's configuration, which each chart carries with it: nobody's global theme is touched."""

"""A chart with its name and its words."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import altair as alt

from moefps.reporting.theme import CONFIG

__all__ = ["Figure", "make_figure"]

_LINE = 136
"""Letters of a line of caption, over a chart of the usual width."""


@dataclass(frozen=True, eq=False)
class Figure:
    """A chart, complete by itself.

    Attributes
    ----------
    name : str
        What its files are called, without a suffix.
    title : str
        What is shown.
    caption : str
        What intervals there are, what was left out, what A and B are; may be empty.
    chart : altair chart
        The chart with its data, its looks, and title and caption as its title and subtitle.
    """

    name: str
    title: str
    caption: str
    chart: Any

    def spec(self, *, titled: bool = True) -> dict[str, Any]:
        """Give the Vega-Lite specification, checked against its schema.

        Parameters
        ----------
        titled : bool
            False leaves title and caption out, for a page that writes them beside the chart.

        Returns
        -------
        dict
            The same every time, whatever theme of altair is on.
        """
        with alt.theme.enable("none"):
            found: dict[str, Any] = self.chart.to_dict()
        found["datasets"] = {name: list(rows) for name, rows in found.get("datasets", {}).items()}
        if not titled:
            found.pop("title", None)
        return found


def make_figure(name: str, title: str, sentences: list[str], chart: Any, *, letters: int = _LINE) -> Figure:
    """Put title and caption on a chart, and the looks that all charts have.

    Parameters
    ----------
    name, title : str
        Of the figure.
    sentences : list of str
        The caption; empty ones are left out.
    chart : altair chart
        Without a title of its own.
    letters : int
        Where lines of the caption are broken.
    """
    caption = " ".join(sentence for sentence in sentences if sentence)
    words = alt.TitleParams(
        text=textwrap.wrap(title, letters * 3 // 4), subtitle=textwrap.wrap(caption, letters) or alt.Undefined
    )
    description = f"{title}. {caption}".strip()
    return Figure(name, title, caption, chart.properties(title=words, description=description).configure(**CONFIG))

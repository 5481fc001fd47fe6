"""Tables for the page: what is shown of them, and their values as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps.reporting.columns import Meaning, column_meaning

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MOST_ROWS", "PageTable", "column_settings", "table_values"]

MOST_ROWS = 50_000
"""Rows that a page holds of one table; a browser stays quick with them."""
_MOST_LETTERS = 2_000
"""Letters of one cell of text."""
_DIGITS = 4
_MOST_DECIMALS = 8
_EXACT = 1 << 53


@dataclass(frozen=True, eq=False)
class PageTable:
    """One table as it stands on the page.

    Attributes
    ----------
    name : str
        What its .csv is called; several tables may show different columns of one frame.
    title : str
        What it is.
    text : str
        A sentence more about it; may be empty.
    frame : polars.DataFrame
        All columns, which the .csv has.
    book : {"comparison", "metrics", "picks"}
        Where its columns are explained.
    shown : sequence of str, optional
        The columns on the page; all when not given. Where a column m has ``m_lo`` and ``m_hi``, its cells show both.
    ends : (str, str, str), optional
        A column, and those with the ends of its interval where they have other names.
    """

    name: str
    title: str
    text: str
    frame: pl.DataFrame
    book: str
    shown: Sequence[str] | None = None
    ends: tuple[str, str, str] | None = None

    @property
    def n_rows(self) -> int:
        """Rows that the page holds."""
        return min(self.frame.height, MOST_ROWS)

    @property
    def n_cut(self) -> int:
        """Rows that the page leaves out."""
        return self.frame.height - self.n_rows

    def columns(self) -> list[str]:
        """Give the columns that are shown: those asked for that there are, intervals beside their values."""
        hidden = {end for name in self.frame.columns for end in self.interval(name) or ()}
        wanted = self.frame.columns if self.shown is None else self.shown
        return [name for name in wanted if name in self.frame.columns and name not in hidden]

    def interval(self, name: str) -> tuple[str, str] | None:
        """Give the columns that hold the interval of a column, if there are any."""
        found = (f"{name}_lo", f"{name}_hi")
        if self.ends is not None and name == self.ends[0]:
            found = self.ends[1:]
        return found if all(end in self.frame.columns for end in found) else None

    def meanings(self) -> list[tuple[str, Meaning]]:
        """Say what the shown columns mean, those of which it is known."""
        said = [(name, column_meaning(self.book, name)) for name in self.columns()]
        return [(name, meaning) for name, meaning in said if meaning.text]


def column_settings(table: PageTable) -> list[dict[str, Any]]:
    """Say how each shown column is to be shown.

    Returns
    -------
    list of dict
        ``name``, ``kind`` (number, integer, truth, text), ``decimals`` of numbers (None: each its own), ``lo`` and
        ``hi`` (the columns of its interval), ``text`` (what it means), ``unit``.
    """
    settings = []
    for name in table.columns():
        meaning = column_meaning(table.book, name)
        kind = _kind(table.frame[name])
        entry: dict[str, Any] = {"name": name, "kind": kind}
        if kind == "number":
            entry["decimals"] = None if name in _MIXED else _decimals(table.frame[name])
        interval = table.interval(name)
        if interval is not None:
            entry["lo"], entry["hi"] = interval
        settings.append({**entry, "text": meaning.text, "unit": meaning.unit})
    return settings


_MIXED = frozenset(("value", "mean", "min", "max", "std", "chance", "threshold", "p", "q", "violation", "deviation"))
"""Columns whose rows are of different sizes, so that each number has its own digits."""


def table_values(frame: pl.DataFrame) -> dict[str, Any]:
    """Give the values of a table for JSON, column by column.

    Texts that repeat are written once: ``{"words": [...], "at": [...]}``. What is infinite is the text ``Infinity`` or
    ``-Infinity``, as JSON has no such number.

    Examples
    --------
    >>> table_values(pl.DataFrame({"tv": [0.5, None], "group": ["all", "all"]}))
    {'tv': [0.5, None], 'group': {'words': ['all'], 'at': [0, 0]}}
    """
    frame = frame.head(MOST_ROWS)
    found: dict[str, Any] = {}
    for name in frame.columns:
        kind = _kind(frame[name])
        if kind == "number":
            found[name] = [_number(value) for value in frame[name].cast(pl.Float64).to_list()]
        elif kind == "text":
            found[name] = _words(_text(value) for value in frame[name].to_list())
        else:
            found[name] = frame[name].to_list()
    return found


def _kind(values: pl.Series) -> str:
    dtype = values.dtype
    if dtype == pl.Boolean:
        return "truth"
    if dtype.is_integer():
        # A browser's numbers are float64; beyond this, whole numbers are names of something anyway.
        is_exact = all(-_EXACT <= end <= _EXACT for end in (values.min(), values.max()) if isinstance(end, int))
        return "integer" if is_exact else "text"
    return "number" if dtype.is_numeric() else "text"


def _number(value: float | None) -> float | str | None:
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        text = value
    elif isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    if text is not None and len(text) > _MOST_LETTERS:
        return f"{text[:_MOST_LETTERS]}… ({len(text):,} letters, cut here)"
    return text


def _words(texts: Iterable[str | None]) -> dict[str, list[Any]]:
    places: dict[str, int] = {}
    at = [None if text is None else places.setdefault(text, len(places)) for text in texts]
    return {"words": list(places), "at": at}


def _decimals(values: pl.Series) -> int:
    """Choose how many decimals a column has: four digits of its largest value."""
    largest = max(
        (abs(value) for value in values.cast(pl.Float64).drop_nulls().to_list() if math.isfinite(value)), default=0.0
    )
    if largest == 0:
        return 0
    return min(_MOST_DECIMALS, max(0, _DIGITS - 1 - math.floor(math.log10(largest))))

"""What a page says, before it is HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from moefps.reporting.charts.figure import Figure
    from moefps.reporting.tables import PageTable

__all__ = ["Block", "Content", "Section", "number_ranges", "short", "spanned"]

Block: TypeAlias = str | Sequence[str]
"""A paragraph, or the points of a list; plain text, never HTML."""


@dataclass(frozen=True)
class Section:
    """A part of the summary in words.

    Attributes
    ----------
    heading : str
        What it is about.
    blocks : sequence of Block
        What is said.
    """

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True, eq=False)
class Content:
    """A page.

    Attributes
    ----------
    title : str
        What it is about.
    lead : str
        A sentence below it.
    facts : sequence of (str, str)
        What was run: a word, and what there is to say.
    sections : sequence of Section
        The summary in words.
    markdown : str
        The same where it is there as Markdown.
    figures : mapping of str to Figure
        The charts.
    left_out : mapping of str to str
        Charts that there are not, and why.
    tables : sequence of PageTable
        The tables.
    """

    title: str
    lead: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section] = ()
    markdown: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[PageTable] = ()

    def with_facts(self, facts: Iterable[tuple[str, str]]) -> Content:
        """Add facts."""
        return replace(self, facts=[*self.facts, *facts])

    def joined_with(self, other: Content) -> Content:
        """Put what another page says after what this one does; the title stays."""
        return Content(
            title=self.title,
            lead=f"{self.lead} {other.lead}",
            facts=[*self.facts, *other.facts],
            sections=[*self.sections, *other.sections],
            markdown="\n\n".join(text for text in (self.markdown, other.markdown) if text),
            figures={**self.figures, **other.figures},
            left_out={**self.left_out, **other.left_out},
            tables=[*self.tables, *other.tables],
        )


def short(value: float) -> str:
    """Write a number with the digits that one reads.

    Examples
    --------
    >>> short(0.203912), short(12.3456), short(1234567.0), short(0.0), short(1e-9)
    ('0.2039', '12.35', '1,234,567', '0', '1e-09')
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 or abs(value) < 0.0001 else f"{value:.4f}"


def spanned(value: float, lo: float | None, hi: float | None, *, level: float | None = None) -> str:
    """Write a number with its interval, where there is one.

    Examples
    --------
    >>> spanned(0.5, 0.4, 0.6, level=0.95), spanned(0.5, None, None)
    ('0.5000 (95 %: 0.4000 to 0.6000)', '0.5000')
    """
    if lo is None or hi is None:
        return short(value)
    said = "" if level is None else f"{100 * level:.4g} %: "
    return f"{short(value)} ({said}{short(lo)} to {short(hi)})"


def number_ranges(numbers: Iterable[int]) -> str:
    """Shorten ascending numbers to ranges.

    Examples
    --------
    >>> number_ranges([1, 2, 3, 5, 7, 8])
    '1-3, 5, 7-8'
    """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)

"""What every chart of a comparison needs to know: what A and B are called, which groups can be drawn, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps._words import listed
from moefps.comparison.findings import dump_names
from moefps.reporting.theme import PAIR_STYLES, Style, styles_in_turn

if TYPE_CHECKING:
    from moefps.comparison import Comparison

__all__ = ["MOST_LINES", "NO_PAIRS", "Study", "labels_of", "plain", "signed"]

NO_PAIRS = "only comparisons of pairs have tool responses and solutions"
MOST_LINES = 9
"""Groups in one chart; more would not be told apart."""

_WORDS = {
    "all": "all tokens",
    "canonical": "solution",
    "canonical_non_ws": "solution: no white space",
    "tool_schema": "tool schema",
    "tool_call": "tool call",
    "tool_response": "tool response",
    "tool_response_docstring": "tool response: docstrings",
    "tool_response_non_docstring": "tool response: the rest",
    "user_prompt": "user prompt",
}
_LONGEST = 34
_LONGEST_NAME = 20
"""Characters of what A and B are called in titles and legends."""


def plain(text: Any, longest: int = _LONGEST) -> str:
    r"""Write somebody's name of something in one line that a chart has room for.

    Examples
    --------
    >>> plain("two\nlines"), plain("a long name", 6)
    ('two lines', 'a lon…')
    """
    line = " ".join(str(text).split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line) or "(empty)"
    return line if len(line) <= longest else line[: longest - 1] + "…"


def signed(value: float, digits: str = ".3f", *, plus: bool = False) -> str:
    """Write a number with the minus sign that axes have.

    Examples
    --------
    >>> signed(0.5), signed(0.012, "g", plus=True)
    ('0.500', '+0.012')
    """
    return f"{value:{'+' if plus else ''}{digits}}".replace("-", "\N{MINUS SIGN}")


def labels_of(names: Iterable[Any], words: Mapping[Any, str] | None = None) -> dict[Any, str]:
    """Give names as charts show them, no two the same.

    Examples
    --------
    >>> labels_of(["law", "no  law", "no law"])
    {'law': 'law', 'no  law': 'no law', 'no law': 'no law (2)'}
    """
    found: dict[Any, str] = {}
    for name in names:
        label = (words or {}).get(name) or plain(name)
        number, free = 1, label
        while free in found.values():
            number += 1
            free = f"{label} ({number})"
        found[name] = free
    return found


@dataclass(frozen=True, eq=False)
class Study:
    """A comparison as charts see it.

    Attributes
    ----------
    found : Comparison
        Its tables and summary; nothing else of it is used, so one read back from a folder gives the same charts.
    """

    found: Comparison

    @property
    def summary(self) -> Mapping[str, Any]:
        """What stands out, and how it was measured."""
        return self.found.summary

    @property
    def metrics(self) -> pl.DataFrame:
        """The table of layers and groups."""
        return self.found.layer_metrics

    @cached_property
    def names(self) -> tuple[str, str]:
        """What A and B are called: as in the findings, where that is short enough for a legend."""
        a, b = (plain(name) for name in dump_names(self.summary))
        return (a, b) if a != b and max(len(a), len(b)) <= _LONGEST_NAME else ("A", "B")

    @property
    def versus(self) -> str:
        """Both names."""
        return f"{self.names[0]} against {self.names[1]}"

    @property
    def dumps(self) -> str:
        """A sentence that says which dumps A and B are; empty where their names say it."""
        if self.names != ("A", "B"):
            return ""
        return f"A is {_tail(self.summary['a'])}, B is {_tail(self.summary['b'])}."

    @property
    def is_of_pairs(self) -> bool:
        """Whether the groups are those of pairs, not values of a column."""
        return "count_tool_response" in self.summary and self.summary.get("by") is None

    def intervals(self, rows: pl.DataFrame | None = None) -> str:
        """Give a sentence that says what the bands are, or why there are none.

        Parameters
        ----------
        rows : polars.DataFrame, optional
            What is drawn: ``lo`` is null where there is no interval.
        """
        kind, _, reason = str(self.summary["intervals"]).partition(": ")
        if kind == "none":
            return f"No intervals: {reason}."
        level, _, how = kind.partition(", ")
        gaps = rows is not None and rows["lo"].is_null().any()
        return f"Bands: {level} intervals, {how}" + (", where two tasks or more have tokens." if gaps else ".")

    @cached_property
    def layers(self) -> list[int]:
        """All layers, also those where nothing is compared."""
        return list(range(self.summary["n_layers"]))

    @cached_property
    def tokens(self) -> dict[str, int]:
        """How many tokens each group of the table of layers has, at most in one layer."""
        by_group = self.metrics.group_by("group", maintain_order=True).agg(pl.col("count").max())
        return dict(by_group.iter_rows())

    @cached_property
    def labels(self) -> dict[str, str]:
        """What groups are called in legends, no two the same."""
        return labels_of(self.tokens, _WORDS if self.is_of_pairs else {"all": _WORDS["all"]})

    def drawn(self, measure: str, wanted: Iterable[str] | None = None, *, most: int = MOST_LINES) -> list[str]:
        """Name the groups that have a value of a measure, at most so many: then those with the most tokens.

        Parameters
        ----------
        measure : str
            A column of the table of layers.
        wanted : iterable of str, optional
            Of these groups alone.
        most : int
            How many.
        """
        there = self.metrics.filter(pl.col(measure).is_not_null())["group"].unique(maintain_order=True).to_list()
        if wanted is not None:
            there = [name for name in wanted if name in there]
        if len(there) <= most:
            return there
        # The whole first, then by size; of equal ones the first.
        ranked = sorted(there, key=lambda name: (name != "all", -self.tokens[name]))
        kept = set(ranked[:most])
        return [name for name in there if name in kept]

    def left_out(self, drawn: Sequence[str], measure: str) -> str:
        """Give sentences that say which groups a chart does not show, and why."""
        empty = [self.labels[name] for name, number in self.tokens.items() if not number]
        valued = self.drawn(measure, most=len(self.tokens))
        crowded = [self.labels[name] for name in valued if name not in drawn]
        said = []
        if empty:
            said.append(f"Left out, as no token is compared: {listed(empty)}.")
        if crowded:
            said.append(f"Left out, as they have the fewest tokens of {len(valued)} groups: {listed(crowded)}.")
        return " ".join(said)

    def why_not(self, measure: str, groups: Sequence[str] = ()) -> str | None:
        """Say why a measure of groups cannot be drawn; None where it can.

        Parameters
        ----------
        measure : str
            A column of the table of layers.
        groups : sequence of str
            All of these are needed; any will do when empty.
        """
        missing = (self._why_no_group(name) for name in groups)
        reason = next((reason for reason in missing if reason is not None), None)
        if reason is not None:
            return reason
        drawn = self.drawn(measure, groups or None)
        if drawn and all(name in drawn for name in groups):
            return None
        if not any(self.tokens.values()):
            return "no token is compared"
        if not self.summary["has_weights"]:
            return "a dump holds no weights, so only the sets of chosen experts are compared"
        if measure.startswith("margin") and self.summary["top_k"] == 1:
            return "tokens have one expert each, so there is no margin over a second"
        return f"{measure} is not defined in any layer"

    def _why_no_group(self, name: str) -> str | None:
        if not self.is_of_pairs:
            return NO_PAIRS
        if name not in self.tokens:
            return f"the tables were made without the group {name}"
        return None if self.tokens[name] else f"no token of the group {name} is compared"

    @cached_property
    def _looks(self) -> dict[str, Style]:
        """Give every group its looks: those that are drawn together first, so that they differ most."""
        together = self.drawn("jaccard")
        return styles_in_turn([*together, *(name for name in self.tokens if name not in together)])

    def styles(self, groups: Sequence[str]) -> list[Style]:
        """Give the looks of groups: the same in every chart."""
        of = PAIR_STYLES if self.is_of_pairs else self._looks
        return [of[name] for name in groups]


def _tail(path: str, longest: int = 48) -> str:
    """Write a path in one line; of a long one, the end."""
    line = plain(path, len(path))
    return line if len(line) <= longest else f"…{line[1 - longest :]}"

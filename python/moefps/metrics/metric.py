"""What a metric is: one name, one definition, and all that a reader must know to judge its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

__all__ = ["NEEDS", "Better", "Level", "Metric", "Target"]

Better: TypeAlias = Literal["up", "down", "-"]
Level: TypeAlias = Literal["layer", "expert", "pair", "list", "text", "domain", "token_id", "model"]
"""What a metric has one value of: a layer, an expert, a pair of experts, ...; `list` is a list of experts."""
Interval: TypeAlias = Literal["percentile", "basic", "basic of squares"]
"""How a bootstrap interval is made of resamples; see `moefps.metrics.resampling`."""

NEEDS: tuple[str, ...] = (
    "trace",
    "weights",
    "logits",
    "neighbours",
    "pairs",
    "vectors",
    "outputs",
    "batches",
    "domains",
    "windows",
    "token_ids",
    "second trace",
)
"""What a metric can need beside the share of a layer's assignments that each expert has."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What a value should reach.

    Attributes
    ----------
    text : str
        As it was given, such as ``"< 0.05"``.
    op : {"<", "<=", ">", ">="}
        How the value is to be compared.
    value : float or polars.Expr
        With what; an expression is of the columns of a layer, such as `n_experts`.

    Examples
    --------
    >>> Target(text="< 0.05", op="<", value=0.05).text
    '< 0.05'
    """

    text: str
    op: str
    value: float | pl.Expr

    def threshold(self) -> pl.Expr:
        """Give the number to compare with, as an expression."""
        return self.value if isinstance(self.value, pl.Expr) else pl.lit(self.value, dtype=pl.Float64)

    def is_met(self, value: pl.Expr, threshold: pl.Expr) -> pl.Expr:
        """Say whether values reach the target: null where there is no value."""
        return {"<": value < threshold, "<=": value <= threshold, ">": value > threshold, ">=": value >= threshold}[
            self.op
        ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric:
    """A metric: its definition, and what is known about its values.

    Attributes
    ----------
    name : str
        The one name that it has everywhere.
    family : str
        Which table of the documentation it is in: load, balance, capacity, confidence, specialisation, gram, locality,
        segments, vocabulary, consistency, focus, cost.
    formula : str
        The definition, in words and symbols.
    low, high : str
        The range, for k distinct choices a token and nothing dropped; empty where there is no bound.
    better : {"up", "down", "-"}
        Which way is better, if any.
    needs : tuple of str
        What must be there beside the share of assignments of each expert: some of `NEEDS`.
    chance : str or None
        The value under independent uniform top-k routing, as a formula.
    chance_value : polars.Expr or None
        The same as an expression of the columns of a layer.
    target : Target or None
        The checklist's target.
    source : str
        Where the definition is from.
    references : tuple of str
        Numbers that others quote, and what is known of how they measured.
    aliases : tuple of str
        Other names that find it.
    example : str
        A worked example by hand, ending in the value.
    level : {"layer", "expert", "pair", "list", "text", "domain", "token_id", "model"}
        What it has one value of.
    value : polars.Expr or None
        What computes it: an aggregation over the experts of a layer, of the columns of `MetricTables` (those of a
        layer by ``.first()``); for the level ``expert`` an expression for each expert; for ``list`` which experts.
    unit : str
        Unit of the value; empty where it has none.
    undefined : tuple of (polars.Expr, str)
        Conditions under which there is no value, as aggregations too, and the reason that is then given; the first
        one that holds counts.
    no_interval : str or None
        Why there is no bootstrap interval, where there never is one.
    may_be_infinite : bool
        Whether infinity is a value; of all others it is none.
    interval : {"percentile", "basic", "basic of squares"}
        How its bootstrap interval is made: percentiles of the resamples, or, for what noise pushes one way, those
        reflected at the value, of the value itself or of its squared distance from `balanced`.
    balanced : float or polars.Expr
        For ``basic of squares``: the value at perfect balance, from which noise pushes away; an expression is of the
        columns of a layer.
    command : str or None
        The command that computes it, where `moefps.routing_metrics` does not.

    Examples
    --------
    >>> from moefps.metrics import find_metric
    >>> metric = find_metric("gini_coefficient")
    >>> metric.family, metric.better, metric.target.text
    ('balance', 'down', '< 0.05')
    """

    name: str
    family: str
    formula: str
    low: str = ""
    high: str = ""
    better: Better = "-"
    needs: tuple[str, ...] = ()
    chance: str | None = None
    chance_value: pl.Expr | None = None
    target: Target | None = None
    source: str = ""
    references: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    example: str = ""
    level: Level = "layer"
    value: pl.Expr | None = None
    unit: str = ""
    undefined: tuple[tuple[pl.Expr, str], ...] = ()
    no_interval: str | None = None
    may_be_infinite: bool = False
    interval: Interval = "percentile"
    balanced: float | pl.Expr = 0.0
    command: str | None = None

    @property
    def range(self) -> str:
        """The range as one text, such as ``0..1`` or ``≥ 0``; empty where nothing is known."""
        if self.low and self.high:
            return f"{self.low}..{self.high}"
        if self.low:
            return f"≥ {self.low}"
        return f"≤ {self.high}" if self.high else ""

    @property
    def is_scalar(self) -> bool:
        """Whether it is one number a layer, so that it is in the table of layers and is aggregated over them."""
        return self.level in {"layer", "list"}

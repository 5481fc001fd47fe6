"""Two aligned traces compared: tables, and statistics over tasks, not tokens."""

from __future__ import annotations

from moefps.comparison.comparing import compare
from moefps.comparison.reading import open_comparison
from moefps.comparison.result import TABLES, Comparison

__all__ = ["TABLES", "Comparison", "compare", "open_comparison"]

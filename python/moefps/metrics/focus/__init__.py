"""The expert focus degree: how much of what an expert does is for one domain."""

from __future__ import annotations

from moefps.metrics.focus.computing import expert_focus
from moefps.metrics.focus.degree import BANDS, Degrees, compute_degrees
from moefps.metrics.focus.result import ExpertFocus

__all__ = ["BANDS", "Degrees", "ExpertFocus", "compute_degrees", "expert_focus"]

"""From fingerprints to a selection of samples that covers them, and how good it is."""

from __future__ import annotations

from moefps.selection.evaluation import RandomInterval, SelectionEvaluation, evaluate_selection, typicality
from moefps.selection.sampler import FarthestPointSampler
from moefps.selection.sampling import Selection, fps, select

__all__ = [
    "FarthestPointSampler",
    "RandomInterval",
    "Selection",
    "SelectionEvaluation",
    "evaluate_selection",
    "fps",
    "select",
    "typicality",
]

"""Fingerprints of Mixture-of-Experts routing: distances between them, and selections that cover them.

A fingerprint is an array ``[L, E]`` (layers x experts) whose rows are the shares of a sample's routing that each
expert of a layer got. Everything here takes N of them as an array ``[N, L, E]``:

- `wasserstein_matrix`, `wasserstein_cross`: the distances, exact and fast;
- `select`: M of N samples that cover the rest, without the matrix; `fps`: the same on any distance matrix;
- `evaluate_selection`, `typicality`: how good a selection is, and how common each sample is;
- `capture`: the routing of a model of transformers over texts, as a dump on disk; `open_dump` reads one, `write_dump`
  makes one of arrays;
- `routing_metrics`, `expert_focus`, `routing_consistency`, `model_cost`: what a dump, or two, or a model tell of its
  routing and its cost; `RoutingAnalyzer` and `RoutingCallback` while it runs or trains.

Names are imported when they are first used, so ``import moefps`` costs no more than numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moefps._version import __version__
    from moefps.comparison import Comparison, compare, open_comparison
    from moefps.compat.easysteer import analyze_expert_usage
    from moefps.errors import (
        ArgumentError,
        CaptureError,
        CaptureWarning,
        DataError,
        DtypeError,
        DumpError,
        DuplicateWarning,
        FileError,
        MissingExtraError,
        MoefpsError,
        ShapeError,
    )
    from moefps.io.dump import Dump, open_dump, write_dump
    from moefps.io.traces import convert_trace
    from moefps.kernels import mean_distances, simd_levels, wasserstein_cross, wasserstein_matrix
    from moefps.metrics import RoutingMetrics, open_metrics, routing_metrics
    from moefps.metrics.analyzer import RoutingAnalyzer
    from moefps.metrics.consistency import RoutingConsistency, routing_consistency
    from moefps.metrics.cost import ModelCost, model_cost
    from moefps.metrics.cost_routing import RoutingCost, routing_cost
    from moefps.metrics.focus import ExpertFocus, expert_focus
    from moefps.metrics.training import RoutingCallback
    from moefps.pairing import align_pairs, build_pairs
    from moefps.recording import RouterSpec, capture
    from moefps.reporting.figures import draw_figures
    from moefps.reporting.report import write_report
    from moefps.selection import (
        FarthestPointSampler,
        RandomInterval,
        Selection,
        SelectionEvaluation,
        evaluate_selection,
        fps,
        select,
        typicality,
    )

# Where each public name lives.
_HOME = {
    "__version__": "moefps._version",
    "Comparison": "moefps.comparison",
    "compare": "moefps.comparison",
    "open_comparison": "moefps.comparison",
    "analyze_expert_usage": "moefps.compat.easysteer",
    "ArgumentError": "moefps.errors",
    "CaptureError": "moefps.errors",
    "CaptureWarning": "moefps.errors",
    "DataError": "moefps.errors",
    "DtypeError": "moefps.errors",
    "DumpError": "moefps.errors",
    "DuplicateWarning": "moefps.errors",
    "FileError": "moefps.errors",
    "MissingExtraError": "moefps.errors",
    "MoefpsError": "moefps.errors",
    "ShapeError": "moefps.errors",
    "Dump": "moefps.io.dump",
    "open_dump": "moefps.io.dump",
    "write_dump": "moefps.io.dump",
    "convert_trace": "moefps.io.traces",
    "mean_distances": "moefps.kernels",
    "simd_levels": "moefps.kernels",
    "wasserstein_cross": "moefps.kernels",
    "wasserstein_matrix": "moefps.kernels",
    "RoutingMetrics": "moefps.metrics",
    "open_metrics": "moefps.metrics",
    "RoutingAnalyzer": "moefps.metrics.analyzer",
    "RoutingCallback": "moefps.metrics.training",
    "routing_metrics": "moefps.metrics",
    "RoutingConsistency": "moefps.metrics.consistency",
    "routing_consistency": "moefps.metrics.consistency",
    "ModelCost": "moefps.metrics.cost",
    "model_cost": "moefps.metrics.cost",
    "RoutingCost": "moefps.metrics.cost_routing",
    "routing_cost": "moefps.metrics.cost_routing",
    "ExpertFocus": "moefps.metrics.focus",
    "expert_focus": "moefps.metrics.focus",
    "align_pairs": "moefps.pairing",
    "build_pairs": "moefps.pairing",
    "RouterSpec": "moefps.recording",
    "capture": "moefps.recording",
    "draw_figures": "moefps.reporting.figures",
    "write_report": "moefps.reporting.report",
    "FarthestPointSampler": "moefps.selection",
    "RandomInterval": "moefps.selection",
    "Selection": "moefps.selection",
    "SelectionEvaluation": "moefps.selection",
    "evaluate_selection": "moefps.selection",
    "fps": "moefps.selection",
    "select": "moefps.selection",
    "typicality": "moefps.selection",
}

__all__ = [
    "ArgumentError",
    "CaptureError",
    "CaptureWarning",
    "Comparison",
    "DataError",
    "DtypeError",
    "Dump",
    "DumpError",
    "DuplicateWarning",
    "ExpertFocus",
    "FarthestPointSampler",
    "FileError",
    "MissingExtraError",
    "ModelCost",
    "MoefpsError",
    "RandomInterval",
    "RouterSpec",
    "RoutingAnalyzer",
    "RoutingCallback",
    "RoutingConsistency",
    "RoutingCost",
    "RoutingMetrics",
    "Selection",
    "SelectionEvaluation",
    "ShapeError",
    "__version__",
    "align_pairs",
    "analyze_expert_usage",
    "build_pairs",
    "capture",
    "compare",
    "convert_trace",
    "draw_figures",
    "evaluate_selection",
    "expert_focus",
    "fps",
    "mean_distances",
    "model_cost",
    "open_comparison",
    "open_dump",
    "open_metrics",
    "routing_consistency",
    "routing_cost",
    "routing_metrics",
    "select",
    "simd_levels",
    "typicality",
    "wasserstein_cross",
    "wasserstein_matrix",
    "write_dump",
    "write_report",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

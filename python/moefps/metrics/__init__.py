"""Routing metrics: every name of the checklist, with one definition, from a trace or what it was reduced to."""

from __future__ import annotations

from moefps.metrics.metric import Metric, Target
from moefps.metrics.reading import open_metrics
from moefps.metrics.registry import METRICS, find_metric, list_metrics
from moefps.metrics.result import RoutingMetrics
from moefps.metrics.routing import metrics_from_counts, routing_metrics
from moefps.metrics.tables import MetricTables, build_tables

__all__ = [
    "METRICS",
    "Metric",
    "MetricTables",
    "RoutingMetrics",
    "Target",
    "build_tables",
    "find_metric",
    "list_metrics",
    "metrics_from_counts",
    "open_metrics",
    "routing_metrics",
]

"""The only door to the Rust kernels: numpy in, numpy out."""

from __future__ import annotations

from moefps._core import simd_levels
from moefps.kernels._arguments import check_count, check_fingerprints, check_layer_numbers, check_seed, is_real
from moefps.kernels._traces import SCORINGS
from moefps.kernels.activations import (
    Activation,
    ActivationSums,
    check_activations,
    check_threshold,
    round_threshold,
    sum_activations,
    sum_dense_activations,
)
from moefps.kernels.agreement import ChoiceSums, compare_choices
from moefps.kernels.counting import RoutingCounts, count_routing, find_neighbours
from moefps.kernels.distance import mean_distances, wasserstein_cross, wasserstein_matrix
from moefps.kernels.logits import LogitSums, sum_logits
from moefps.kernels.picking import Picks, cover_radii, pick_from_distances, pick_from_fingerprints
from moefps.kernels.segments import SegmentCounts, VocabularyCounts, count_segments, count_vocabulary

__all__ = [
    "SCORINGS",
    "Activation",
    "ActivationSums",
    "ChoiceSums",
    "LogitSums",
    "Picks",
    "RoutingCounts",
    "SegmentCounts",
    "VocabularyCounts",
    "check_activations",
    "check_count",
    "check_fingerprints",
    "check_layer_numbers",
    "check_seed",
    "check_threshold",
    "compare_choices",
    "count_routing",
    "count_segments",
    "count_vocabulary",
    "cover_radii",
    "find_neighbours",
    "is_real",
    "mean_distances",
    "pick_from_distances",
    "pick_from_fingerprints",
    "round_threshold",
    "simd_levels",
    "sum_activations",
    "sum_dense_activations",
    "sum_logits",
    "wasserstein_cross",
    "wasserstein_matrix",
]

"""The only door to the Rust kernels: numpy in, numpy out."""

from __future__ import annotations

from moefps._core import simd_levels
from moefps.kernels._arguments import check_count, check_fingerprints, check_seed
from moefps.kernels.agreement import ChoiceSums, compare_choices
from moefps.kernels.counting import RoutingCounts, count_routing, find_neighbours
from moefps.kernels.distance import mean_distances, wasserstein_cross, wasserstein_matrix
from moefps.kernels.logits import LogitSums, sum_logits
from moefps.kernels.picking import Picks, cover_radii, pick_from_distances, pick_from_fingerprints

__all__ = [
    "ChoiceSums",
    "LogitSums",
    "Picks",
    "RoutingCounts",
    "check_count",
    "check_fingerprints",
    "check_seed",
    "compare_choices",
    "count_routing",
    "cover_radii",
    "find_neighbours",
    "mean_distances",
    "pick_from_distances",
    "pick_from_fingerprints",
    "simd_levels",
    "sum_logits",
    "wasserstein_cross",
    "wasserstein_matrix",
]

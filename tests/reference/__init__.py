"""Plain numpy references: slow, obvious, and written without looking at the fast code.

Every test that asks "is the answer right" compares with one of these. They are themselves held against SciPy,
scikit-matter and RDKit in ``tests/parity/test_reference.py``.
"""

from __future__ import annotations

from reference.bound import allowed_error, largest_gap
from reference.fixed_point import fixed_point_features, fixed_point_matrix
from reference.fps import Picked, brute_force_fps, covering_radius, optimal_radius, start_index
from reference.ground import cross, distance, features, matrix, row_distance
from reference.sample import KINDS, make
from reference.summary import evaluation, mean_distances, typicality

__all__ = [
    "KINDS",
    "Picked",
    "allowed_error",
    "brute_force_fps",
    "covering_radius",
    "cross",
    "distance",
    "evaluation",
    "features",
    "fixed_point_features",
    "fixed_point_matrix",
    "largest_gap",
    "make",
    "matrix",
    "mean_distances",
    "optimal_radius",
    "row_distance",
    "start_index",
    "typicality",
]

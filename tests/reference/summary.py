"""Numbers about samples and selections, from a full distance matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Evaluation(NamedTuple):
    """How well a set of samples covers the rest."""

    covering_radius: float
    mean_distance: float
    labels_covered: int | None


def mean_distances(D: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean distance of every sample to the N - 1 others: shape (N,)."""
    D = np.asarray(D, dtype=np.float64)
    return D.sum(axis=1) / (len(D) - 1)


def typicality(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Percentile 0..100: how many of the others are farther from everything; ties count half. Shape (N,)."""
    out = np.zeros(len(means))
    for i, mine in enumerate(means):
        others = np.delete(means, i)
        out[i] = 100.0 * ((others > mine).sum() + 0.5 * (others == mine).sum()) / len(others)
    return out


def evaluation(D: npt.NDArray[Any], indices: Sequence[int], labels: Sequence[Any] | None = None) -> Evaluation:
    """Covering radius, mean distance to the nearest pick, and how many labels the picks have between them."""
    nearest = np.asarray(D, dtype=np.float64)[:, list(indices)].min(axis=1)
    covered = None if labels is None else len({labels[i] for i in indices})
    return Evaluation(float(nearest.max()), float(nearest.mean()), covered)

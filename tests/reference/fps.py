"""Farthest point sampling on a distance matrix, by looking at everything every time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Picked(NamedTuple):
    """What a selection is made of, with the names of ``moefps.Selection``."""

    indices: npt.NDArray[np.int64]
    radii: npt.NDArray[np.float64]
    assignment: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]
    cluster_sizes: npt.NDArray[np.int64]


def start_index(D: npt.NDArray[Any], start: str, seed: int | None = None) -> int:
    """The first pick for a start word; among equal sums, the lowest index."""
    if start == "random":
        return int(np.random.default_rng(seed).integers(len(D)))
    sums = [math.fsum(row) for row in np.asarray(D, dtype=np.float64)]
    wanted = min(sums) if start == "medoid" else max(sums)
    return sums.index(wanted)


def brute_force_fps(
    D: npt.NDArray[Any],
    n_select: int | None,
    start: int | Sequence[int] = 0,
    stop_radius: float | None = None,
) -> Picked:
    """Pick the sample that is farthest from all picks, again and again.

    Parameters
    ----------
    D : array of shape (N, N)
        Symmetric distances.
    n_select : int or None
        How many to pick; None for as many as ``stop_radius`` asks for.
    start : int or sequence of int
        The first picks; all of them are kept.
    stop_radius : float, optional
        Stop after the first pick that leaves no sample farther away than this.

    Returns
    -------
    Picked
        Ties go to the lowest index, and a sample equally near to two picks belongs to the earlier one.
    """
    D = np.asarray(D, dtype=np.float64)
    n = len(D)
    first = [int(start)] if isinstance(start, (int, np.integer)) else [int(i) for i in start]
    limit = n if n_select is None else n_select
    picks: list[int] = []
    radii: list[float] = []
    while len(picks) < limit:
        if len(picks) < len(first):
            pick = first[len(picks)]
        else:
            left = [i for i in range(n) if i not in picks]
            nearest = [D[i, picks].min() for i in left]
            pick = left[int(np.argmax(nearest))]
        picks.append(pick)
        radii.append(float(D[:, picks].min(axis=1).max()))
        if stop_radius is not None and radii[-1] <= stop_radius and len(picks) >= len(first):
            break
    assignment = D[:, picks].argmin(axis=1)
    return Picked(
        indices=np.array(picks, dtype=np.int64),
        radii=np.array(radii),
        assignment=assignment.astype(np.int64),
        distances=D[:, picks].min(axis=1),
        cluster_sizes=np.bincount(assignment, minlength=len(picks)).astype(np.int64),
    )


def covering_radius(D: npt.NDArray[Any], picks: Sequence[int]) -> float:
    """The distance of the sample that is worst covered by the picks."""
    return float(np.asarray(D, dtype=np.float64)[:, list(picks)].min(axis=1).max())


def optimal_radius(D: npt.NDArray[Any], n_select: int) -> float:
    """The smallest covering radius of any ``n_select`` samples; tries all of them."""
    return min(covering_radius(D, picks) for picks in itertools.combinations(range(len(D)), n_select))

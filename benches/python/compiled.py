"""The distance matrix as a good numba programmer would write it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

# Rows and columns of a tile, and features taken at a time: what was fastest of several tried.
TILE = 64
CHUNK = 1024


@njit(fastmath=True, inline="always", cache=True)
def _two_by_four(a0, a1, b0, b1, b2, b3):
    """Add up |a - b| of eight pairs at once, which keeps the vector units busy and uses each load several times."""
    zero = a0[0] - a0[0]
    s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
    for k in range(a0.shape[0]):
        s0 += abs(a0[k] - b0[k])
        s1 += abs(a0[k] - b1[k])
        s2 += abs(a0[k] - b2[k])
        s3 += abs(a0[k] - b3[k])
        s4 += abs(a1[k] - b0[k])
        s5 += abs(a1[k] - b1[k])
        s6 += abs(a1[k] - b2[k])
        s7 += abs(a1[k] - b3[k])
    return s0, s1, s2, s3, s4, s5, s6, s7


@njit(fastmath=True, inline="always", cache=True)
def _one_by_one(a, b):
    total = a[0] - a[0]
    for k in range(a.shape[0]):
        total += abs(a[k] - b[k])
    return total


@njit(fastmath=True, cache=True)
def _tile(F, D, top, left, start, stop):
    """Add a chunk of features to a tile of D."""
    bottom, right = min(len(F), top + TILE), min(len(F), left + TILE)
    whole_bottom, whole_right = bottom - (bottom - top) % 2, right - (right - left) % 4
    for i in range(top, whole_bottom, 2):
        a0, a1 = F[i, start:stop], F[i + 1, start:stop]
        for j in range(left, whole_right, 4):
            b0, b1, b2, b3 = F[j, start:stop], F[j + 1, start:stop], F[j + 2, start:stop], F[j + 3, start:stop]
            sums = _two_by_four(a0, a1, b0, b1, b2, b3)
            for c in range(4):
                D[i, j + c] += sums[c]
                D[i + 1, j + c] += sums[4 + c]
        for j in range(whole_right, right):
            D[i, j] += _one_by_one(a0, F[j, start:stop])
            D[i + 1, j] += _one_by_one(a1, F[j, start:stop])
    for i in range(whole_bottom, bottom):
        for j in range(left, right):
            D[i, j] += _one_by_one(F[i, start:stop], F[j, start:stop])


@njit(parallel=True, fastmath=True, cache=True)
def _matrix(F, D, tops, lefts):
    for t in prange(len(tops)):
        top, left = tops[t], lefts[t]
        for start in range(0, F.shape[1], CHUNK):
            _tile(F, D, top, left, start, min(F.shape[1], start + CHUNK))
        if top != left:
            for i in range(top, min(len(F), top + TILE)):
                for j in range(left, min(len(F), left + TILE)):
                    D[j, i] = D[i, j]


def numba_matrix(F: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """All L1 distances between the rows of F, [N, N], on as many threads as numba is set to."""
    D = np.zeros((len(F), len(F)), dtype=F.dtype)
    tiles = [(top, left) for top in range(0, len(F), TILE) for left in range(top, len(F), TILE)]
    tops, lefts = np.array(tiles).T.copy()
    _matrix(F, D, tops, lefts)
    return D

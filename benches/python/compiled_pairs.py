"""Sums over pairs of choices as a good numba programmer would write them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

if TYPE_CHECKING:
    from moefps.io import Dump

Array = npt.NDArray[Any]

MEASURES = (
    "tv",
    "jaccard",
    "js",
    "common",
    "top1",
    "top5",
    *(f"{m}_{s}" for m in ("entropy", "neff", "margin") for s in "ab"),
)


@njit(fastmath=True, inline="always", cache=True)
def _shares(weights, out):
    """Weights divided by their sum; their entropy."""
    total = np.float32(0.0)
    for slot in range(len(weights)):
        total += weights[slot]
    entropy = np.float32(0.0)
    for slot in range(len(weights)):
        out[slot] = weights[slot] / total
        if out[slot] > 0:
            entropy -= out[slot] * math.log(out[slot])
    return entropy


@njit(fastmath=True, cache=True)
def _pair(ids_a, ids_b, a, b, share_of, rank_of, sums):
    """Add what one pair says, but for what each side says by itself; `share_of` and `rank_of` are left all 0."""
    k = len(ids_a)
    for slot in range(k):
        share_of[ids_a[slot]], rank_of[ids_a[slot]] = a[slot], slot + 1
    common, top5, overlap, js, alone = 0, 0, np.float32(0.0), np.float32(0.0), np.float32(2.0)
    for slot in range(k):
        rank = rank_of[ids_b[slot]]
        if rank > 0:
            p, q = share_of[ids_b[slot]], b[slot]
            common += 1
            top5 += rank <= 5 and slot < 5
            overlap += min(p, q)
            alone -= p + q
            # What only one of the two has adds half its share.
            js += p * math.log2(2 * p / (p + q)) + q * math.log2(2 * q / (p + q))
    for slot in range(k):
        rank_of[ids_a[slot]] = 0
    sums[0] += 1 - overlap
    sums[1] += common / (2 * k - common)
    sums[2] += 0.5 * (js + alone)
    sums[3] += common
    sums[4] += ids_a[0] == ids_b[0]
    sums[5] += top5


@njit(parallel=True, fastmath=True, cache=True)
def _all(ids_a, weights_a, ids_b, weights_b, rows_a, rows_b, starts, kinds, sums, used, shares):
    """Every task by itself, so that no two threads add to the same cell."""
    n_layers, k = ids_a.shape[1:]
    n_experts = used.shape[4]
    for task in prange(len(starts) - 1):
        a, b = np.empty(k, np.float32), np.empty(k, np.float32)
        share_of, rank_of = np.zeros(n_experts, np.float32), np.zeros(n_experts, np.int64)
        for pair in range(starts[task], starts[task + 1]):
            i, j, kind = rows_a[pair], rows_b[pair], kinds[pair]
            for layer in range(n_layers):
                cell = sums[task, kind, layer]
                entropies = _shares(weights_a[i, layer], a), _shares(weights_b[j, layer], b)
                _pair(ids_a[i, layer], ids_b[j, layer], a, b, share_of, rank_of, cell)
                for side in range(2):
                    of = a if side == 0 else b
                    ids = ids_a[i, layer] if side == 0 else ids_b[j, layer]
                    cell[6 + side] += entropies[side]
                    cell[8 + side] += math.exp(entropies[side])
                    cell[10 + side] += of[0] - of[1]
                    for slot in range(k):
                        used[side, task, kind, layer, ids[slot]] += 1
                        shares[side, task, kind, layer, ids[slot]] += of[slot]


def numba_sums(sides: tuple[Dump, Dump], rows: tuple[Array, Array], task: Array, kind: Array, n_kinds: int) -> Array:
    """Sums of all measures by task, class and layer, [N, K, L, 12], with the usage of experts beside them.

    Slots are taken to be all filled and in falling order, as they are in these data.
    """
    starts = np.searchsorted(task, np.arange(int(task[-1]) + 2))
    sums = np.zeros((len(starts) - 1, n_kinds, sides[0].n_layers, len(MEASURES)))
    used = np.zeros((2, *sums.shape[:3], sides[0].n_experts), dtype=np.int32)
    shares = np.zeros(used.shape, dtype=np.float32)
    arrays = [np.asarray(of) for side in sides for of in (side.expert_ids, side.expert_weights)]
    _all(*arrays, *rows, starts, kind, sums, used, shares)
    return sums

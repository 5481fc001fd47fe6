"""Sums of weights and logits that are float64, which the kernels do not read: in numpy, a piece of the rows at a time.

Nothing is rounded on the way to them. What is summed is defined in `moefps.kernels.RoutingCounts` and `LogitSums`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moefps._typing import Float64Array
from moefps.io.dump.scoring import full_probabilities, has_full_probabilities

__all__ = ["add_up_logits", "add_up_weights"]

# Cells of [rows, E] that are held at a time: 8 MB of float64 each.
CELLS = 1 << 20


def add_up_weights(
    ids: npt.NDArray[np.int16], weights: Float64Array, *, n_experts: int, pairs: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Add up what needs weights, of one layer.

    Parameters
    ----------
    ids : ndarray of int16 [T, k]
        Chosen experts; -1, and whatever is not below `n_experts`, counts as empty.
    weights : ndarray of float64 [T, k]
        Their weights.
    n_experts : int
        E, without passive ones.
    pairs : ndarray of bool [T]
        Which rows, together with the row before, are a pair of neighbours to look at.

    Returns
    -------
    dict
        Those fields of `RoutingCounts` that need weights, each with a first axis of one layer.
    """
    found: dict[str, Any] = {
        "first_choices": np.zeros(n_experts, dtype=np.int64),
        "weight_sums": np.zeros(n_experts),
        "share_sums": np.zeros(n_experts),
        "tokens_without_shares": 0,
        "entropy_sums": 0.0,
        "entropy_tokens": 0,
        "pairs_of_same_first": 0,
        "locality_sums": 0.0,
        "pairs_without_shares": 0,
    }
    step = max(1, CELLS // n_experts)
    for start in range(0, len(ids), step):
        # With the row before the piece, for the pair that its first row is in.
        first = max(0, start - 1)
        rows = slice(first, start + step)
        piece = _Piece(ids[rows], weights[rows], n_experts)
        piece.add_tokens(found, start - first)
        piece.add_pairs(found, np.flatnonzero(pairs[start : start + step]) + (start - first))
    dtypes = {int: np.int64, float: np.float64}
    return {
        name: value[np.newaxis] if isinstance(value, np.ndarray) else np.array([value], dtype=dtypes[type(value)])
        for name, value in found.items()
    }


class _Piece:
    """Some rows of a layer, and their shares."""

    def __init__(self, ids: npt.NDArray[np.int16], weights: Float64Array, n_experts: int) -> None:
        self.n_experts = n_experts
        self.filled = (ids >= 0) & (ids < n_experts)
        self.ids = np.where(self.filled, ids, 0).astype(np.int64)
        self.weights = np.where(self.filled, weights, 0.0)
        totals = self.weights.sum(axis=1)
        self.any: npt.NDArray[np.bool_] = self.filled.sum(axis=1) > 0
        self.whole: npt.NDArray[np.bool_] = self.any & (totals != 0)
        self.shares = self.weights / np.where(self.whole, totals, 1.0)[:, np.newaxis]
        best = np.where(self.filled, self.weights, -np.inf).argmax(axis=1)
        self.first = self.ids[np.arange(len(ids)), best]

    def add_tokens(self, found: dict[str, Any], start: int) -> None:
        """Add the tokens from row `start` on."""
        any_, whole, filled = self.any[start:], self.whole[start:], self.filled[start:]
        ids, weights, shares = self.ids[start:], self.weights[start:], self.shares[start:]
        n_experts = self.n_experts
        shared = filled & whole[:, np.newaxis]
        found["first_choices"] += np.bincount(self.first[start:][any_], minlength=n_experts)
        found["weight_sums"] += np.bincount(ids[filled], weights[filled], minlength=n_experts)
        found["share_sums"] += np.bincount(ids[shared], shares[shared], minlength=n_experts)
        found["tokens_without_shares"] += int((any_ & ~whole).sum())
        slots = filled.sum(axis=1)
        known = whole & (slots >= 2) & (weights >= 0).all(axis=1)
        x = shares[known]
        entropies = -(x * np.log(np.where(x > 0, x, 1.0))).sum(axis=1) / np.log(slots[known])
        found["entropy_sums"] += float(entropies.sum())
        found["entropy_tokens"] += int(known.sum())

    def add_pairs(self, found: dict[str, Any], later: npt.NDArray[np.int64]) -> None:
        """Add the pairs of the rows `later` and those before them."""
        later = later[self.any[later] & self.any[later - 1]]
        found["pairs_of_same_first"] += int((self.first[later] == self.first[later - 1]).sum())
        whole = self.whole[later] & self.whole[later - 1]
        found["pairs_without_shares"] += int((~whole).sum())
        later = later[whole]
        apart = np.zeros((len(later), self.n_experts))
        rows = np.arange(len(later))[:, np.newaxis]
        np.add.at(apart, (rows, self.ids[later]), self.shares[later])
        np.subtract.at(apart, (rows, self.ids[later - 1]), self.shares[later - 1])
        found["locality_sums"] += float((1.0 - np.abs(apart).sum(axis=1) / 2).sum())


def add_up_logits(ids: npt.NDArray[np.int16], logits: Float64Array, *, n_experts: int, scoring: str) -> dict[str, Any]:
    """Add up what needs the full distribution, of one layer.

    Parameters
    ----------
    ids : ndarray of int16 [T, k]
        Chosen experts, as for `add_up_weights`.
    logits : ndarray of float64 [T, E']
        What the router computed, passive experts last.
    n_experts : int
        E, without passive ones.
    scoring : str
        How logits become a distribution.

    Returns
    -------
    dict
        The fields of `LogitSums` but `n_experts` and `scoring`, each with a first axis of one layer.
    """
    found: dict[str, Any] = {
        "tokens": 0,
        "tokens_without_probs": 0,
        "prob_sums": np.zeros(n_experts),
        "entropy_sums": 0.0,
        "z_sums": 0.0,
        "z_tokens": 0,
        "selection_margin_sums": 0.0,
        "selection_margin_tokens": 0,
        "top1_margin_sums": 0.0,
        "top1_margin_tokens": 0,
    }
    step = max(1, CELLS // logits.shape[1])
    for start in range(0, len(ids) if has_full_probabilities(scoring) else 0, step):
        _add_logits(found, ids[start : start + step], logits[start : start + step], n_experts, scoring)
    dtypes = {int: np.int64, float: np.float64}
    return {
        name: value[np.newaxis] if isinstance(value, np.ndarray) else np.array([value], dtype=dtypes[type(value)])
        for name, value in found.items()
    }


def _add_logits(
    found: dict[str, Any], ids: npt.NDArray[np.int16], logits: Float64Array, n_experts: int, scoring: str
) -> None:
    filled = (ids >= 0) & (ids < n_experts)
    used = filled.any(axis=1)
    ids, filled, logits = ids[used], filled[used], logits[used]
    p = full_probabilities(logits, scoring)[:, :n_experts]
    totals = p.sum(axis=1)
    whole = totals > 0
    found["tokens_without_probs"] += int((~whole).sum())
    ids, filled, logits, p = ids[whole], filled[whole], logits[whole], p[whole] / totals[whole, np.newaxis]
    found["tokens"] += len(p)
    found["prob_sums"] += p.sum(axis=0)
    found["entropy_sums"] += float(-(p * np.log(np.where(p > 0, p, 1.0))).sum())
    if scoring != "probabilities":
        top = logits.max(axis=1)
        found["z_sums"] += float(((top + np.log(np.exp(logits - top[:, np.newaxis]).sum(axis=1))) ** 2).sum())
        found["z_tokens"] += len(p)
    chosen = np.zeros(p.shape, dtype=np.bool_)
    chosen[np.nonzero(filled)[0], ids[filled]] = True
    some = ~chosen.all(axis=1)
    least = np.where(chosen, p, np.inf).min(axis=1, initial=np.inf)[some]
    rest = np.where(chosen, -np.inf, p).max(axis=1, initial=-np.inf)[some]
    found["selection_margin_sums"] += float((least - rest).sum())
    found["selection_margin_tokens"] += int(some.sum())
    if n_experts >= 2:
        best = np.partition(p, n_experts - 2, axis=1)[:, -2:]
        found["top1_margin_sums"] += float((best[:, 1] - best[:, 0]).sum())
        found["top1_margin_tokens"] += len(p)

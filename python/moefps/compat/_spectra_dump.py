"""SPECTRA's numbers for a whole dump: those metrics of the registry that it computes otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from moefps._typing import Float64Array, IndexArray, Progress
from moefps.compat._spectra_step import (
    consistency_values,
    entropy_terms,
    load_values,
    overlap_values,
    weighted_values,
)
from moefps.compat._spectra_vectors import describe_gram, measure_vectors
from moefps.errors import DataError, DumpError
from moefps.kernels import RoutingCounts, count_routing
from moefps.metrics.reduction import layer_view

if TYPE_CHECKING:
    from moefps.io import Dump
    from moefps.metrics.metric import Better

__all__ = ["NAMES", "spectra_directions", "spectra_tables"]

NAMES = {
    "maxvio": "maxvio",
    "normalized_maxvio": "normalized_maxvio",
    "gini_coefficient": "gini_coefficient",
    "aux_loss": "aux_loss",
    "expert_activation_entropy": "expert_activation_entropy",
    "expert_concentration": "expert_concentration",
    "routing_confidence": "routing_confidence",
    "expert_overlap": "expert_overlap_mean",
    "expert_overlap_std": "expert_overlap_std",
    "expert_overlap_max": "expert_overlap_max",
    "sequential_routing_consistency": "sequential_routing_consistency",
    "expert_reuse_rate": "expert_reuse_rate",
    "top_k_overlap": "top_k_overlap",
    "top_k_jaccard": "top_k_overlap",
    "routing_locality": "routing_locality",
    "gram_matrix_orthogonality": "gram_matrix_orthogonality",
    "gram_off_diagonal_sparsity": "gram_off_diagonal_sparsity",
}
"""What differs: names of the registry, and the original's keys."""

spectra_directions: dict[str, Better] = {"routing_confidence": "down", "gram_off_diagonal_sparsity": "down"}
"""Which way is better, where that differs: here the one is an entropy of weights, the other a mean |cosine|."""

ROWS = 1 << 22
# Numbers that are held at a time, where weights are looked at one by one.
CELLS = 1 << 20
MOST_PAIRS = 1 << 26
NO_WEIGHTS = "the dump holds no weights"
NOT_DEFINED = "not defined for one expert, one slot, negative weights, or weights that sum to 0"


@dataclass(frozen=True, eq=False)
class TraceSums:
    """What the old numbers of a dump are made of, for G groups and the layers asked for.

    Attributes
    ----------
    counts : RoutingCounts
        With a first axis of groups; its pairs are all neighbours within a group, whatever sequence they are in.
    same : ndarray of int64 [G, L]
        Pairs with the same expert in slot 0.
    entropy, change : ndarray of float64 [G, L]
        Σ over tokens of H(w), and over pairs of |Δw| of slot 0; NaN without weights.
    """

    counts: RoutingCounts
    same: IndexArray
    entropy: Float64Array
    change: Float64Array


def spectra_tables(
    dump: Dump,
    *,
    layers: IndexArray,
    groups: npt.NDArray[Any] | None = None,
    n_groups: int = 1,
    capacity_factor: float = 1.25,
    n_threads: int | None = None,
    progress: Progress = False,
) -> pl.DataFrame:
    """Compute what SPECTRA defines otherwise than the literature.

    Parameters
    ----------
    dump : Dump
        The dump; its arrays are read in pieces.
    layers : ndarray of int64 [L]
        Which layers.
    groups : ndarray of int [T], optional
        The group of each token; `n_groups` and more is none. All tokens of a group are one sequence.
    n_groups : int
        How many groups there are.
    capacity_factor, n_threads, progress
        As `moefps.routing_metrics` takes them.

    Returns
    -------
    polars.DataFrame
        A row a group (where there are groups), layer and metric: ``group``, ``layer``, ``metric``, ``value``,
        ``reason``.

    Raises
    ------
    DataError
        A slot is empty, or on a passive expert.
    """
    trace = Trace(dump, layers, groups, n_groups, {"n_threads": n_threads, "progress": progress})
    sums = trace.reduce()
    rows = []
    for group in range(n_groups):
        for place, layer in enumerate(layers.tolist()):
            values, reasons = _values(dump, sums, group, place, layer, capacity_factor)
            for name, key in NAMES.items():
                value = values.get(key, math.nan)
                found = None if math.isnan(value) or math.isinf(value) else value
                reason = None if found is not None else reasons.get(key, NOT_DEFINED)
                rows.append((group, layer, name, found, reason))
    schema = {"group": pl.Int64, "layer": pl.Int64, "metric": pl.String, "value": pl.Float64, "reason": pl.String}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.drop("group") if groups is None else table


def _values(
    dump: Dump, sums: TraceSums, group: int, place: int, layer: int, factor: float
) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the numbers of one layer under the original's keys, and reasons why some are missing."""
    counts = sums.counts
    n_experts, top_k = int(counts.n_experts[place]), int(counts.top_k[place])
    activations = counts.activations[group, place, :n_experts]
    tokens = int(counts.tokens[group, place])
    if not tokens:
        return {}, dict.fromkeys(NAMES.values(), "no token has a filled slot in this layer")
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if counts.weight_sums is None:
        of_weights = ("expert_activation_entropy", "expert_concentration", "routing_confidence", "routing_locality")
        reasons |= dict.fromkeys((*of_weights, "aux_loss"), NO_WEIGHTS)
    weight_sums = np.zeros(n_experts) if counts.weight_sums is None else counts.weight_sums[group, place, :n_experts]
    found |= load_values(activations, weight_sums, top_k=top_k, factor=factor)
    if weight_sums.sum() != 0:
        found |= weighted_values(weight_sums)
    else:
        del found["aux_loss"]
    if top_k > 1:
        found["routing_confidence"] = float(sums.entropy[group, place]) / tokens / math.log(top_k)
    if counts.coactivation is not None:
        common = counts.coactivation[group, place, :n_experts, :n_experts]
        found |= overlap_values(np.diagonal(common), common) if n_experts > 1 else {}
    else:
        of_pairs = ("expert_overlap_mean", "expert_overlap_std", "expert_overlap_max")
        reasons |= dict.fromkeys(
            of_pairs, f"pairs of experts of all groups would take more than {MOST_PAIRS:,} counters"
        )
    assert counts.jaccard_sums is not None  # noqa: S101 (neighbours are counted)
    jaccard, change = float(counts.jaccard_sums[group, place]), float(sums.change[group, place])
    if tokens > 1:
        found |= consistency_values(tokens - 1, int(sums.same[group, place]), jaccard, change)
    else:
        reasons |= dict.fromkeys(consistency_values(1, 0, 0.0, 0.0), "there is one token, and no pair of neighbours")
    if dump.router_vectors is None:
        of_vectors = ("gram_matrix_orthogonality", "gram_off_diagonal_sparsity")
        reasons |= dict.fromkeys(of_vectors, "the dump holds no router vectors")
    else:
        name = f"{dump.path}: router_vectors of layer {layer}"
        vectors = np.asarray(dump.router_vectors[layer, :n_experts])
        found |= describe_gram(measure_vectors(name, vectors, n_experts, flat=True))
    return found, reasons


class Trace:
    """The layers of a dump that are asked for, read in pieces."""

    def __init__(
        self, dump: Dump, layers: IndexArray, groups: npt.NDArray[Any] | None, n_groups: int, options: dict[str, Any]
    ) -> None:
        view, self._back = layer_view(layers)
        self._layers, self._options = layers, options
        self._dump = dump
        self._groups, self._n_groups = groups, n_groups
        # A group more holds what is in none.
        self._n_cells = n_groups if groups is None else max(n_groups, int(groups.max(initial=0)) + 1)
        self._ids: npt.NDArray[np.int16] = dump.expert_ids[:, view]
        self._weights: npt.NDArray[Any] | None = None if dump.expert_weights is None else dump.expert_weights[:, view]
        infos = [dump.layers[i] for i in range(dump.n_layers)[view]]
        self._facts: dict[str, Any] = {
            "n_experts": [info.n_experts for info in infos],
            "passive_experts": [info.passive_experts for info in infos],
            "top_k": [info.top_k for info in infos],
            "signed_weights": [info.signed_weights for info in infos],
        }
        widest = max(info.n_experts for info in infos)
        fits = n_groups * len(infos) * widest**2 <= MOST_PAIRS
        self._pairs_of_experts = ("whole" if groups is None else "groups") if fits else "none"

    def reduce(self) -> TraceSums:
        """Read everything, and add up.

        Raises
        ------
        DataError
            A slot is empty, or on a passive expert.
        """
        counts, slot0 = None, None
        for first in range(0, len(self._ids), ROWS):
            rows = slice(first, first + ROWS)
            follows = self._follows(rows)
            piece = self._count(rows, follows, self._codes(rows), self._pairs_of_experts, **self._options)
            counts = piece if counts is None else counts + piece
            piece = self._count_slot0(rows, follows, self._codes(rows))
            slot0 = piece if slot0 is None else slot0 + piece
        if counts is None or slot0 is None:
            raise DumpError(f"{self._dump.path}: holds nothing to count")
        counts = self._taken(counts)
        self._check_full(counts)
        n_layers = self._ids.shape[1]
        entropy, change = np.zeros((2, self._n_cells, n_layers))
        jaccard, same = np.zeros((self._n_cells, n_layers)), np.zeros((self._n_cells, n_layers), dtype=np.int64)
        for rows, before in self._pieces():
            at = np.arange(rows.start, rows.stop)
            if self._weights is not None:
                self._add_weights(rows, before, entropy, change)
            apart = np.flatnonzero((before >= 0) & ((before != at - 1) | (at % ROWS == 0)))
            if len(apart):
                both = np.stack([before[apart], at[apart]], axis=1).reshape(-1)
                follows = np.arange(len(both)) % 2 == 1
                codes = None if self._groups is None else self._groups[both]
                found = self._count(both, follows, codes, "none")
                jaccard += self._celled(found.jaccard_sums)
                same += self._celled(self._count_slot0(both, follows, codes).pairs_with_common)
        own = slice(self._n_groups)
        assert counts.jaccard_sums is not None  # noqa: S101 (neighbours were counted)
        more = {"jaccard_sums": counts.jaccard_sums + jaccard[own, self._back]}
        if self._weights is None:
            entropy, change = np.full((2, *entropy.shape), math.nan)
        return TraceSums(
            _replaced(counts, more),
            self._celled(slot0.pairs_with_common)[own, self._back] + same[own, self._back],
            entropy[own, self._back],
            change[own, self._back],
        )

    def _codes(self, rows: slice) -> npt.NDArray[Any] | None:
        return None if self._groups is None else self._groups[rows]

    def _follows(self, rows: slice) -> npt.NDArray[np.bool_]:
        """Say of each row of a piece whether the row before, in the piece, is of its group."""
        follows = np.ones(len(self._ids[rows]), dtype=np.bool_)
        codes = self._codes(rows)
        if codes is not None:
            follows[1:] = codes[1:] == codes[:-1]
        follows[:1] = False
        return follows

    def _count(
        self, rows: Any, follows: npt.NDArray[np.bool_], codes: npt.NDArray[Any] | None, pairs: Any, **options: Any
    ) -> RoutingCounts:
        return count_routing(
            self._ids[rows],
            None if self._weights is None else self._weights[rows],
            follows=follows,
            groups=codes,
            n_groups=None if codes is None else self._n_cells,
            coactivation=pairs,
            **self._facts,
            **options,
        )

    def _count_slot0(self, rows: Any, follows: npt.NDArray[np.bool_], codes: npt.NDArray[Any] | None) -> RoutingCounts:
        facts: dict[str, Any] = {name: self._facts[name] for name in ("n_experts", "passive_experts")}
        return count_routing(
            self._ids[rows][:, :, :1],
            follows=follows,
            groups=codes,
            n_groups=None if codes is None else self._n_cells,
            coactivation="none",
            n_threads=self._options["n_threads"],
            **facts,
        )

    def _celled(self, array: Any) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = array if self._groups is not None else array[np.newaxis]
        return found

    def _taken(self, counts: RoutingCounts) -> RoutingCounts:
        """Take the groups and layers asked for."""
        taken: dict[str, Any] = {}
        for name, array in vars(counts).items():
            if array is None:
                taken[name] = None
            elif name in {"n_experts", "top_k"}:
                taken[name] = array[self._back]
            else:
                taken[name] = self._celled(array)[: self._n_groups, self._back]
        return RoutingCounts(**taken)

    def _check_full(self, counts: RoutingCounts) -> None:
        for name, slots in (("empty", counts.empty_slots), ("on passive experts", counts.passive_slots)):
            wrong = slots.sum(axis=0)
            if wrong.any():
                place = int(np.argmax(wrong > 0))
                raise DataError(
                    f"{self._dump.path}: {int(wrong[place]):,} slots of layer {int(self._layers[place])} are {name}; "
                    "accepted with convention='spectra': none, as the original takes every slot for an expert"
                )

    def _pieces(self) -> Iterator[tuple[slice, IndexArray]]:
        """Give rows, and for each of them the row before it in its group: -1 where there is none."""
        step = max(1, CELLS // max(1, self._ids.shape[1] * self._ids.shape[2]))
        last = np.full(self._n_cells, -1, dtype=np.int64)
        for first in range(0, len(self._ids), step):
            rows = slice(first, min(first + step, len(self._ids)))
            at = np.arange(rows.start, rows.stop)
            codes = np.zeros(len(at), dtype=np.int64) if self._groups is None else self._groups[rows].astype(np.int64)
            order = np.argsort(codes, kind="stable")
            sorted_codes = codes[order]
            before = np.empty(len(at), dtype=np.int64)
            previous = np.concatenate([[-1], at[order][:-1]])
            starts = np.concatenate([[True], sorted_codes[1:] != sorted_codes[:-1]])
            before[order] = np.where(starts, last[sorted_codes], previous)
            ends = np.concatenate([starts[1:], [True]])
            last[sorted_codes[ends]] = at[order][ends]
            yield rows, before

    def _add_weights(self, rows: slice, before: IndexArray, entropy: Float64Array, change: Float64Array) -> None:
        """Add the entropies of weights, and how the weight of slot 0 changes."""
        assert self._weights is not None  # noqa: S101 (the caller has looked)
        weights = self._weights[rows]
        weights = weights.astype(np.float32, copy=False)
        used = np.arange(weights.shape[2]) < np.array(self._facts["top_k"])[:, np.newaxis]
        with np.errstate(invalid="ignore"):
            # A negative weight has none, and then there is no mean.
            terms = np.where(used, entropy_terms(weights), 0.0).sum(axis=2)
        first = weights[:, :, 0].astype(np.float64)
        earlier = np.where((before >= rows.start)[:, np.newaxis], first[np.maximum(before - rows.start, 0)], 0.0)
        away = np.flatnonzero((before >= 0) & (before < rows.start))
        earlier[away] = self._weights[before[away]][:, :, 0]
        moved = np.where((before >= 0)[:, np.newaxis], np.abs(first - earlier), 0.0)
        for total, values in ((entropy, terms), (change, moved)):
            if self._groups is None:
                total[0] += values.sum(axis=0)
            else:
                where = self._groups[rows].astype(np.int64)[:, np.newaxis] * total.shape[1] + np.arange(total.shape[1])
                total.reshape(-1)[:] += np.bincount(where.ravel(), values.ravel(), minlength=total.size)


def _replaced(counts: RoutingCounts, more: dict[str, Any]) -> RoutingCounts:
    return RoutingCounts(**{**vars(counts), **more})

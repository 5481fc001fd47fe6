"""Counts and sums of a trace by name, for any number of cells: groups, samples, or resamples of them.

A cell is a set of tokens. Whatever metrics are made of is additive, so that the cells of a group sum to the group, and
a resample of samples is one product of its multiplicities with the samples' cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moefps.errors import ArgumentError, ShapeError
from moefps.kernels import LogitSums

if TYPE_CHECKING:
    from moefps._typing import Float64Array, IndexArray
    from moefps.kernels import RoutingCounts

__all__ = ["BY_EXPERT", "BY_LAYER", "Sums", "sums_of_counts"]

BY_LAYER: tuple[str, ...] = (
    "rows",
    "tokens",
    "assignments",
    "passive_slots",
    "empty_slots",
    "tokens_without_shares",
    "entropy_sum",
    "entropy_tokens",
    "pairs",
    "pairs_with_common",
    "common_experts",
    "jaccard_sum",
    "pairs_of_same_first",
    "locality_sum",
    "pairs_without_shares",
    "logit_tokens",
    "tokens_without_probs",
    "p_entropy_sum",
    "z_sum",
    "z_tokens",
    "selection_margin_sum",
    "selection_margin_tokens",
    "top1_margin_sum",
    "top1_margin_tokens",
)
"""What is counted by layer, as columns of `MetricTables.layers`."""

BY_EXPERT: tuple[str, ...] = ("activations", "token_count", "weight_sum", "share_sum", "first_choices", "prob_sum")
"""What is counted by expert, as columns of `MetricTables.experts`."""

_OF_COUNTS = {
    "rows": "rows",
    "tokens": "tokens",
    "assignments": "assignments",
    "passive_slots": "passive_slots",
    "empty_slots": "empty_slots",
    "tokens_without_shares": "tokens_without_shares",
    "entropy_sum": "entropy_sums",
    "entropy_tokens": "entropy_tokens",
    "pairs": "pairs",
    "pairs_with_common": "pairs_with_common",
    "common_experts": "common_experts",
    "jaccard_sum": "jaccard_sums",
    "pairs_of_same_first": "pairs_of_same_first",
    "locality_sum": "locality_sums",
    "pairs_without_shares": "pairs_without_shares",
    "activations": "activations",
    "token_count": "tokens_by_expert",
    "weight_sum": "weight_sums",
    "share_sum": "share_sums",
    "first_choices": "first_choices",
}
_OF_LOGITS = {
    "logit_tokens": "tokens",
    "tokens_without_probs": "tokens_without_probs",
    "p_entropy_sum": "entropy_sums",
    "z_sum": "z_sums",
    "z_tokens": "z_tokens",
    "selection_margin_sum": "selection_margin_sums",
    "selection_margin_tokens": "selection_margin_tokens",
    "top1_margin_sum": "top1_margin_sums",
    "top1_margin_tokens": "top1_margin_tokens",
    "prob_sum": "prob_sums",
}


@dataclass(frozen=True, eq=False)
class Sums:
    """What metrics are made of, for C cells.

    Attributes
    ----------
    layers : ndarray of int64 [L]
        The layers' numbers in the dump.
    n_experts : ndarray of int64 [L]
        Experts of each layer, without passive ones.
    top_k : ndarray of int64 [L] or None
        Slots of each layer, where that is known.
    by_layer : mapping of str to ndarray [C, L]
        Some of `BY_LAYER`; NaN where a layer has no such thing.
    by_expert : mapping of str to ndarray [C, L, E]
        Some of `BY_EXPERT`; E of the widest layer.
    coactivation : ndarray [C, L, E, E] or None
        Tokens that chose both experts, the one on the diagonal.
    """

    layers: IndexArray
    n_experts: IndexArray
    top_k: IndexArray | None
    by_layer: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    by_expert: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    coactivation: npt.NDArray[Any] | None = None

    @property
    def n_cells(self) -> int:
        """How many cells there are, C."""
        arrays = [*self.by_expert.values(), *self.by_layer.values()]
        return int(arrays[0].shape[0])

    def pick(self, cells: IndexArray) -> Sums:
        """Give some cells."""
        return self._each(lambda array: array[cells])

    def total(self, labels: IndexArray, n_labels: int) -> Sums:
        """Add up the cells of each label, in their order.

        Parameters
        ----------
        labels : ndarray of int64 [C]
            The label of each cell, which go up.
        n_labels : int
            How many labels there are; each has a cell.
        """
        starts = np.searchsorted(labels, np.arange(n_labels))
        if n_labels == len(labels):
            return self
        return self._each(lambda array: np.add.reduceat(array, starts, axis=0))

    def weigh(self, multiplicities: Float64Array) -> Sums:
        """Add up the cells as often as each row of multiplicities [R, C] says, giving R cells."""

        def product(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
            flat = array.reshape(len(array), -1)
            # Counts are exact as float64, and BLAS takes nothing else.
            return (multiplicities @ flat.astype(np.float64, copy=False)).reshape(-1, *array.shape[1:])

        return self._each(product)

    def as_floats(self) -> Sums:
        """Give all as float64, once for many calls of `weigh`."""
        return self._each(lambda array: array.astype(np.float64, copy=False))

    def with_coactivation(self, coactivation: npt.NDArray[Any] | None) -> Sums:
        """Give the same with pairs of experts from elsewhere, or without."""
        return replace(self, coactivation=coactivation)

    def _each(self, function: Any) -> Sums:
        return replace(
            self,
            by_layer={name: function(array) for name, array in self.by_layer.items()},
            by_expert={name: function(array) for name, array in self.by_expert.items()},
            coactivation=None if self.coactivation is None else function(self.coactivation),
        )


def sums_of_counts(counts: RoutingCounts, logit_sums: Any = None, layers: IndexArray | None = None) -> Sums:
    """Name the parts of counts, with a first axis of cells: one where they have none.

    Parameters
    ----------
    counts : RoutingCounts
        Counts of a trace, with groups or without.
    logit_sums : LogitSums, optional
        What the logits of the same tokens, groups and layers were reduced to.
    layers : ndarray of int64 [L], optional
        The layers' numbers in the dump; 0..L-1 when not given.

    Returns
    -------
    Sums
        With the pairs of experts only where they were counted for the same cells.

    Raises
    ------
    ArgumentError, ShapeError
        The sums of logits are not of the layers, experts and groups of the counts.
    """
    if logit_sums is not None:
        _check_alike(counts, logit_sums)
    grouped = counts.passive_slots.ndim == 2
    found: dict[str, npt.NDArray[Any]] = {}
    for of, names in ((counts, _OF_COUNTS), (logit_sums, _OF_LOGITS)):
        for name, attribute in names.items():
            array = None if of is None else getattr(of, attribute)
            if array is not None:
                found[name] = array if grouped else array[np.newaxis]
    coactivation = counts.coactivation
    if coactivation is not None and not grouped:
        coactivation = coactivation[np.newaxis]
    elif coactivation is not None and coactivation.ndim == 3:
        coactivation = coactivation[np.newaxis] if len(counts.passive_slots) == 1 else None
    return Sums(
        np.arange(len(counts.n_experts)) if layers is None else layers,
        counts.n_experts,
        counts.top_k,
        {name: found[name] for name in BY_LAYER if name in found},
        {name: found[name] for name in BY_EXPERT if name in found},
        coactivation,
    )


def _check_alike(counts: RoutingCounts, logit_sums: Any) -> None:
    """Refuse sums of logits that are not of what was counted."""
    if not isinstance(logit_sums, LogitSums):
        raise ArgumentError(
            f"logit_sums: {type(logit_sums).__name__}; accepted: what moefps.kernels.sum_logits gives, or None"
        )
    ours, theirs = counts.n_experts.tolist(), logit_sums.n_experts.tolist()
    if ours != theirs:
        raise ArgumentError(f"logit_sums: n_experts {theirs}; accepted: {ours}, as counts have it")
    if logit_sums.tokens.shape != counts.passive_slots.shape:
        raise ShapeError(
            f"logit_sums: shape {logit_sums.tokens.shape} of groups and layers; accepted: "
            f"{counts.passive_slots.shape}, as counts have it"
        )

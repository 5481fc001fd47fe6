"""What batches of one layer were reduced to: sums that add up, and that several layers lay side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps.errors import ArgumentError, DataError
from moefps.kernels import RoutingCounts, count_routing
from moefps.metrics.batch import Batch
from moefps.metrics.double import add_up_logits, add_up_weights

__all__ = ["LayerSums", "check_alike", "reduce_batch", "stack_counts", "stack_domains", "stack_logit_sums"]


@dataclass(frozen=True, eq=False)
class LayerSums:
    """What is known of one layer; two of them add up.

    Attributes
    ----------
    counts : RoutingCounts
        Of one layer.
    logit_sums : LogitSums or None
        Of the same tokens, where logits were given.
    domains : dict
        The counts of each domain, without pairs of experts; empty where no domains were given.
    violation : float
        Σ MaxVio over updates.
    updates : int
        Updates in that sum: those with a filled slot.
    """

    counts: RoutingCounts
    logit_sums: Any = None
    domains: dict[str | int, RoutingCounts] = field(default_factory=dict)
    violation: float = 0.0
    updates: int = 0

    def __add__(self, other: LayerSums) -> LayerSums:
        domains = dict(self.domains)
        for name, counts in other.domains.items():
            domains[name] = domains[name] + counts if name in domains else counts
        return LayerSums(
            self.counts + other.counts,
            None if self.logit_sums is None else self.logit_sums + other.logit_sums,
            domains,
            self.violation + other.violation,
            self.updates + other.updates,
        )


def reduce_batch(batch: Batch, *, n_experts: int, passive_experts: int, signed: bool, scoring: str) -> LayerSums:
    """Reduce a batch of one layer.

    Parameters
    ----------
    batch : Batch
        Its tokens.
    n_experts, passive_experts : int
        Experts that its router can choose, and how many of them do nothing.
    signed : bool
        Whether weights may be negative.
    scoring : str
        How logits become a distribution.

    Raises
    ------
    DataError
        A logit is NaN or infinite.
    """
    experts = n_experts, passive_experts
    counts = _count(batch.ids, batch.weights, batch.follows, experts, signed, pairs=True)
    domains = {}
    for group, name in enumerate(batch.domains):
        rows = np.flatnonzero(batch.groups == group)
        weights = None if batch.weights is None else batch.weights[rows]
        # The row before must be of the same domain, too.
        follows = batch.follows[rows] & (np.diff(rows, prepend=-1) == 1)
        domains[name] = _count(batch.ids[rows], weights, follows, experts, signed, pairs=False)
    sums = None if batch.logits is None else _sum_logits(batch, experts, scoring)
    loads, total = counts.activations[0], int(counts.assignments[0])
    mean = total / (n_experts - passive_experts)
    violation = (int(loads.max()) - mean) / mean if total else 0.0
    return LayerSums(counts, sums, domains, violation, int(total > 0))


def _count(
    ids: npt.NDArray[np.int16],
    weights: npt.NDArray[Any] | None,
    follows: npt.NDArray[np.bool_],
    experts: tuple[int, int],
    signed: bool,
    *,
    pairs: bool,
) -> RoutingCounts:
    """Count one layer; weights in float64 are added up here, as the kernel does not read them."""
    n_experts, passive = experts
    is_double = weights is not None and weights.dtype == np.float64
    counts = count_routing(
        ids[:, np.newaxis],
        None if weights is None or is_double else np.ascontiguousarray(weights)[:, np.newaxis],
        n_experts=n_experts,
        passive_experts=passive,
        signed_weights=signed,
        follows=follows,
        coactivation="whole" if pairs else "none",
    )
    if weights is not None and is_double:
        added = add_up_weights(ids, weights, n_experts=n_experts - passive, pairs=follows)
        counts = dataclasses.replace(counts, **added)
    return counts


def _sum_logits(batch: Batch, experts: tuple[int, int], scoring: str) -> Any:
    """Add up the logits of one layer."""
    from moefps.kernels import sum_logits

    n_experts, passive = experts
    assert batch.logits is not None  # noqa: S101 (the caller has looked)
    if batch.logits.dtype != np.float64:
        return sum_logits(
            batch.ids[:, np.newaxis],
            np.ascontiguousarray(batch.logits)[:, np.newaxis],
            n_experts=n_experts,
            passive_experts=passive,
            scoring=[scoring],
        )
    # Checks the scoring, and has all the fields.
    none = np.zeros((0, 1, n_experts), dtype=np.float32)
    empty = sum_logits(batch.ids[:0, np.newaxis], none, n_experts=n_experts, passive_experts=passive, scoring=[scoring])
    filled = (batch.ids >= 0).any(axis=1)
    wrong = filled & ~(batch.logits < math.inf).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"logits: token row {row} has a value that is NaN or infinite; accepted: numbers, and -inf")
    added = add_up_logits(batch.ids, batch.logits, n_experts=n_experts - passive, scoring=scoring)
    return dataclasses.replace(empty, **added)


def check_alike(layer: int, ours: LayerSums, theirs: LayerSums) -> None:
    """Refuse to add up what was counted from different arrays."""
    slots = ours.counts.top_k[0], theirs.counts.top_k[0]
    if slots[0] != slots[1]:
        raise ArgumentError(f"ids: {slots[0]} and {slots[1]} slots a token in layer {layer}; accepted: one k a layer")
    for name, a, b in (
        ("weights", ours.counts.weight_sums is None, theirs.counts.weight_sums is None),
        ("logits", ours.logit_sums is None, theirs.logit_sums is None),
        ("domains", not ours.domains, not theirs.domains),
    ):
        # A batch without a token has no domain.
        if a != b and not (name == "domains" and 0 in (ours.counts.rows[0], theirs.counts.rows[0])):
            raise ArgumentError(
                f"{name}: given for some updates of layer {layer} and not for others; accepted: for all or for none"
            )
    if len({type(name) for sums in (ours, theirs) for name in sums.domains}) > 1:
        raise ArgumentError(f"domains: strings and integers in layer {layer}; accepted: one or the other")
    scorings = [sums.logit_sums.scoring for sums in (ours, theirs) if sums.logit_sums is not None]
    if len(scorings) == 2 and scorings[0] != scorings[1]:
        raise ArgumentError(
            f"scoring: {scorings[0][0]!r} and {scorings[1][0]!r} in layer {layer}; accepted: one scoring a layer"
        )


def stack_counts(parts: Sequence[RoutingCounts]) -> RoutingCounts:
    """Put the counts of single layers side by side; NaN where a layer has not what another has.

    Parameters
    ----------
    parts : sequence of RoutingCounts
        Each of one layer, with any number of experts and slots.
    """
    names = [entry.name for entry in dataclasses.fields(RoutingCounts)]
    return RoutingCounts(**{name: _stack([getattr(part, name) for part in parts]) for name in names})


def _stack(arrays: Sequence[npt.NDArray[Any] | None]) -> Any:
    given = [array for array in arrays if array is not None]
    if not given:
        return None
    shape = tuple(np.max([array.shape for array in given], axis=0))[1:]
    # Whole numbers stay whole where all layers have them.
    whole = len(given) == len(arrays)
    stacked = np.zeros((len(arrays), *shape), dtype=given[0].dtype if whole else np.float64)
    for place, array in enumerate(arrays):
        if array is None:
            stacked[place] = np.nan
        else:
            where: tuple[Any, ...] = (place, *(slice(size) for size in array.shape[1:]))
            stacked[where] = array[0]
    return stacked


def stack_logit_sums(parts: Sequence[Any]) -> Any:
    """Put the sums of logits side by side, too; None where no layer has any."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    names = [entry.name for entry in dataclasses.fields(given[0]) if entry.name not in {"n_experts", "scoring"}]
    return type(given[0])(
        n_experts=_stack([None if part is None else part.n_experts for part in parts]),
        scoring=tuple("" if part is None else part.scoring[0] for part in parts),
        **{name: _stack([None if part is None else getattr(part, name) for part in parts]) for name in names},
    )


def stack_domains(parts: Sequence[LayerSums], names: Sequence[str | int]) -> RoutingCounts:
    """Put the counts of domains one before the other, as a first axis."""
    counts = []
    for name in names:
        # A layer that a domain never came to has counted nothing of it.
        of_layers = [
            part.domains[name] if name in part.domains else _nothing(part.domains, part.counts) for part in parts
        ]
        counts.append(stack_counts(of_layers))
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(RoutingCounts):
        arrays = [getattr(of, entry.name) for of in counts]
        layout = entry.name in {"n_experts", "top_k"}
        found[entry.name] = arrays[0] if layout else None if arrays[0] is None else np.stack(arrays)
    return RoutingCounts(**found)


def _nothing(domains: dict[str | int, RoutingCounts], counts: RoutingCounts) -> RoutingCounts:
    """Give counts of a layer without any token."""
    like = next(iter(domains.values()), dataclasses.replace(counts, coactivation=None))
    zeros: dict[str, Any] = {
        entry.name: None if getattr(like, entry.name) is None else np.zeros_like(getattr(like, entry.name))
        for entry in dataclasses.fields(like)
        if entry.name not in {"n_experts", "top_k"}
    }
    return dataclasses.replace(like, **zeros)

"""Routing metrics of batches as they come: sums are kept, never tokens, and sums of two analyzers add up."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from moefps.errors import ArgumentError, DataError
from moefps.metrics.arguments import check_factor
from moefps.metrics.batch import lay_out
from moefps.metrics.layer_sums import (
    LayerSums,
    check_alike,
    reduce_batch,
    stack_counts,
    stack_domains,
    stack_logit_sums,
)
from moefps.metrics.routing import metrics_from_counts

if TYPE_CHECKING:
    from moefps.metrics.result import RoutingMetrics

__all__ = ["RoutingAnalyzer"]

MOST_EXPERTS = 2**15 - 1


class RoutingAnalyzer:
    """Routing metrics of batches as they come, in memory that does not grow with their number.

    Parameters
    ----------
    n_experts : int or sequence of int [L]
        Experts that a router can choose, passive ones among them; with a sequence, of each layer.
    capacity_factor : float
        For the capacity metrics.
    passive_experts : int or sequence of int [L]
        How many of the experts, the last ones, do nothing.
    signed_weights : bool or sequence of bool [L]
        Whether weights may be negative.

    Examples
    --------
    >>> import numpy as np
    >>> analyzer = RoutingAnalyzer(4)
    >>> analyzer.update(np.array([[[0, 1], [0, 2]], [[0, 3], [1, 0]]]))
    >>> analyzer.update(np.array([[2, 3], [3, 2]]))
    >>> analyzer.get_aggregated_metrics()["load_imbalance_ratio"]
    1.3333333333333333

    Shards are combined by adding them up:

    >>> other = RoutingAnalyzer(4)
    >>> other.update(np.array([[1, 2]]))
    >>> (analyzer + other).get_aggregated_metrics()["total_expert_activations"]
    14.0
    """

    def __init__(
        self,
        n_experts: int | Sequence[int],
        *,
        capacity_factor: float = 1.25,
        passive_experts: int | Sequence[int] = 0,
        signed_weights: bool | Sequence[bool] = False,
    ) -> None:
        self._n_experts = _integers("n_experts", n_experts, 1, MOST_EXPERTS)
        self._passive = _integers("passive_experts", passive_experts, 0, MOST_EXPERTS)
        self._signed = _flags("signed_weights", signed_weights)
        lengths = {len(x) for x in (self._n_experts, self._passive, self._signed) if isinstance(x, tuple)}
        if len(lengths) > 1:
            raise ArgumentError(f"n_experts and others: for {sorted(lengths)} layers; accepted: one number of layers")
        self._n_layers = lengths.pop() if lengths else None
        for layer in range(self._n_layers or 1):
            if _of(self._passive, layer) >= _of(self._n_experts, layer):
                raise ArgumentError(
                    f"passive_experts: {_of(self._passive, layer)} of {_of(self._n_experts, layer)} experts; accepted: "
                    "fewer than n_experts"
                )
        self._capacity_factor = check_factor(capacity_factor)
        self._layers: dict[int, LayerSums] = {}

    def __repr__(self) -> str:
        tokens = sum(int(sums.counts.tokens[0]) for sums in self._layers.values())
        return f"RoutingAnalyzer({len(self._layers)} layers, {tokens:,} tokens over all layers)"

    def update(
        self,
        ids: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        logits: npt.ArrayLike | None = None,
        *,
        layer: int = 0,
        mask: npt.ArrayLike | None = None,
        offsets: npt.ArrayLike | None = None,
        domains: Any = None,
        scoring: str = "softmax",
    ) -> None:
        """Add a batch of one layer. After an error, nothing has been added.

        Arrays are of numpy, or tensors of torch on any device. A sequence does not go on in the next update.

        Parameters
        ----------
        ids : array of integers [B, S, k] or [T, k]
            Chosen experts, a row a sequence or a row a token; -1 is an empty slot. k is at most the number of experts,
            and the same in all updates of a layer.
        weights : array of floats, of the shape of `ids`, optional
            Gate weights as the router returned them. For all updates of a layer, or for none.
        logits : array of floats [B, S, E] or [T, E], optional
            The router's logits. For all updates of a layer, or for none.
        layer : int
            The layer's number, from 0 on.
        mask : array of bool, or of 0 and 1 [B, S], optional
            Which positions are tokens; the others are not looked at.
        offsets : array of int [N + 1], optional
            Where sequences start in ids [T, k], and T; one sequence when not given.
        domains : str, int, or array of them [B] (of sequences, [N] with offsets), [B, S] or [T], optional
            What the tokens are from. For all updates of a layer, or for none.
        scoring : str
            How logits become a distribution over experts, as a dump's layers say it; the same in all updates of a
            layer.

        Raises
        ------
        ShapeError, DtypeError
            Arrays that are not accepted, or do not fit each other.
        ArgumentError
            `layer`, `mask` or `offsets` does not fit, or this update has other arrays than those before it.
        DataError
            An id is no expert's; a weight or logit is NaN or infinite; a weight is negative where none may be.
        """
        number = self._check_layer(layer)
        batch = lay_out(
            ids,
            weights,
            logits,
            n_experts=_of(self._n_experts, number),
            signed=_of(self._signed, number),
            mask=mask,
            offsets=offsets,
            domains=domains,
        )
        sums = reduce_batch(
            batch,
            n_experts=_of(self._n_experts, number),
            passive_experts=_of(self._passive, number),
            signed=_of(self._signed, number),
            scoring=scoring,
        )
        before = self._layers.get(number)
        if before is not None:
            check_alike(number, before, sums)
            sums = before + sums
        self._layers[number] = sums

    analyze_routing_step = update

    def _check_layer(self, layer: Any) -> int:
        most = "" if self._n_layers is None else f" to {self._n_layers - 1}"
        accepted = f"an integer from 0{most or ' on'}"
        try:
            number = operator.index(layer)
        except TypeError:
            number = -1
        if (
            not 0 <= number < 2**31
            or isinstance(layer, bool)
            or (self._n_layers is not None and number >= self._n_layers)
        ):
            raise ArgumentError(f"layer: {layer!r}; accepted: {accepted}")
        return number

    def __add__(self, other: object) -> RoutingAnalyzer:
        if not isinstance(other, RoutingAnalyzer):
            return NotImplemented
        ours, theirs = self._settings(), other._settings()
        for name, setting in ours.items():
            if setting != theirs[name]:
                raise ArgumentError(f"analyzers: {name} {setting} and {theirs[name]}; accepted: the same settings")
        found = RoutingAnalyzer(**ours)
        for number in sorted({*self._layers, *other._layers}):
            both = [layers[number] for layers in (self._layers, other._layers) if number in layers]
            if len(both) == 2:
                check_alike(number, *both)
            found._layers[number] = both[0] if len(both) == 1 else both[0] + both[1]
        return found

    def _settings(self) -> dict[str, Any]:
        """Give what it was made with, under the names of the arguments."""
        return {
            "n_experts": self._n_experts,
            "passive_experts": self._passive,
            "signed_weights": self._signed,
            "capacity_factor": self._capacity_factor,
        }

    def __radd__(self, other: object) -> RoutingAnalyzer:
        # What `sum` begins with.
        return self if other == 0 else NotImplemented

    def reset(self) -> None:
        """Forget all updates."""
        self._layers = {}

    def result(self, metrics: Sequence[str] | str | None = None, *, by_domain: bool = False) -> RoutingMetrics:
        """Give the metrics of all updates so far.

        Parameters
        ----------
        metrics : sequence of str, optional
            Which metrics; all when not given.
        by_domain : bool
            True repeats everything for each domain: then every table has a first column ``group``, and pairs of experts
            are not known.

        Returns
        -------
        RoutingMetrics
            As `moefps.routing_metrics` gives them for a dump, with ``layer`` as in `update`. What needs arrays that
            were not given is null, with a reason. ``maxvio_batch`` is the mean over updates; ``domains`` is there where
            domains were given.

        Raises
        ------
        DataError
            There was no update.
        ArgumentError
            `by_domain` without domains, or a metric that there is not.
        """
        if not self._layers:
            raise DataError("RoutingAnalyzer: there was no update; accepted: at least one")
        numbers = sorted(self._layers)
        parts = [self._layers[number] for number in numbers]
        names = sorted(
            {name for part in parts for name in part.domains}, key=lambda name: (isinstance(name, str), name)
        )
        if by_domain and not names:
            raise ArgumentError("by_domain: no domains were given; accepted: False, or updates with domains")
        about: dict[str, Any] = {"source": "RoutingAnalyzer", "convention": "literature"}
        if names:
            about |= {"by": "domain", "groups": names} if by_domain else {"domains": names}
        options: dict[str, Any] = {"capacity_factor": self._capacity_factor, "metrics": metrics, "about": about}
        found = None
        if not by_domain:
            found = metrics_from_counts(
                stack_counts([part.counts for part in parts]),
                logit_sums=stack_logit_sums([part.logit_sums for part in parts]),
                batch_maxvio=[part.violation / part.updates if part.updates else math.nan for part in parts],
                **options,
            )
        if names:
            missing = {
                "logits": "logits are not added up by domain",
                "pairs": "pairs of experts are not counted by domain",
                "batches": "batches are not counted by domain",
            }
            grouped = metrics_from_counts(stack_domains(parts, names), groups=names, missing=missing, **options)
            found = grouped if found is None else dataclasses.replace(found, domains=grouped.domains)
        assert found is not None  # noqa: S101 (without names, there is the whole)
        return _renumbered(found, numbers)

    def get_aggregated_metrics(self) -> dict[str, float | None]:
        """Give the metrics of all updates so far as one flat dict.

        Returns
        -------
        dict of str to float or None
            Each metric's mean over layers, under its name; where there are several layers also ``name/min``,
            ``name/max`` and ``name/std``. None where it is not defined in any layer. Empty before the first update.
        """
        if not self._layers:
            return {}
        kinds = ("mean", "min", "max", "std") if len(self._layers) > 1 else ("mean",)
        found: dict[str, float | None] = {}
        for row in self.result().summary.iter_rows(named=True):
            for kind in kinds:
                found[row["metric"] if kind == "mean" else f"{row['metric']}/{kind}"] = row[kind]
        return found


def _of(value: Any, layer: int) -> Any:
    """Give a layer's setting, of one for all or one for each."""
    return value[layer] if isinstance(value, tuple) else value


def _integers(name: str, value: Any, least: int, most: int) -> int | tuple[int, ...]:
    accepted = f"an integer from {least} to {most}, or one for each layer"
    if isinstance(value, (str, bytes, bool)):
        raise ArgumentError(f"{name}: {value!r}; accepted: {accepted}")
    try:
        is_one = not hasattr(value, "__len__")
        found = (operator.index(value),) if is_one else tuple(operator.index(part) for part in value)
    except TypeError:
        raise ArgumentError(f"{name}: {value!r}; accepted: {accepted}") from None
    if not found or not all(least <= number <= most for number in found):
        raise ArgumentError(f"{name}: {value!r}; accepted: {accepted}")
    return found[0] if is_one else found


def _flags(name: str, value: Any) -> bool | tuple[bool, ...]:
    found = np.asarray(value)
    if found.dtype != np.bool_ or found.ndim > 1:
        raise ArgumentError(f"{name}: {value!r}; accepted: True, False, or one of them for each layer")
    return bool(found) if found.ndim == 0 else tuple(found.tolist())


def _renumbered(found: RoutingMetrics, numbers: Sequence[int]) -> RoutingMetrics:
    """Give layers the numbers that they were given in `update`."""
    if list(numbers) == list(range(len(numbers))):
        return found

    def numbered(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("layer").replace_strict(list(range(len(numbers))), list(numbers)))

    changed: dict[str, Any] = {name: numbered(getattr(found, name)) for name in ("layers", "experts", "details")}
    if found.domains is not None:
        changed["domains"] = numbered(found.domains)
    if found.pairs is not None:
        changed["pairs"] = dataclasses.replace(found.pairs, layers=np.array(numbers, dtype=np.int64))
    return dataclasses.replace(found, **changed)

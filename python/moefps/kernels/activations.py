"""How strongly experts are active on tokens: sums by group of the activations above a threshold, in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from moefps import _core
from moefps._progress import progress_callback
from moefps._typing import Float64Array, FloatArray, IndexArray, Progress
from moefps.errors import ArgumentError, ShapeError
from moefps.kernels._arguments import check_count, check_float_array, check_layer_numbers, check_threads, is_real
from moefps.kernels._merging import add_up
from moefps.kernels._traces import (
    MOST_EXPERTS,
    SCORINGS,
    check_experts,
    check_groups,
    check_ids,
    check_logits,
    check_scoring,
    check_signs,
    check_slots,
    check_weights,
)

Activation: TypeAlias = Literal["weights", "renormalized", "probs"]

_KINDS = ("weights", "renormalized", "probs")
_MOST_BINS = 10_000
_LAYOUT = ("layers", "n_experts", "threshold", "highest")


class Request(NamedTuple):
    """The arguments of a sum, checked; Rust reads these attributes."""

    activation: str
    expert_ids: npt.NDArray[np.int16] | None
    numbers: FloatArray
    layers: list[int]
    n_experts: list[int]
    passive_experts: list[int]
    top_k: list[int]
    signed_weights: list[bool]
    scoring: list[str]
    groups: npt.NDArray[np.uint32] | None
    n_groups: int
    threshold: float
    n_bins: int
    highest: float


@dataclass(frozen=True, eq=False)
class ActivationSums:
    """What the activations of a trace were summed up to: exact counts (int64) and sums (float64).

    L layers, E experts of the layer that has most, without passive ones; layers with fewer have zeros. Arrays with a
    first axis G have it only if the sums were made with groups. An activation counts if it is above the threshold. Sums
    of `ActivationSums` of one layout are those of both traces together: ``a + b``.

    Attributes
    ----------
    layers : ndarray of int64 [L]
        Which layers of the trace.
    n_experts : ndarray of int64 [L]
        Experts of each, without passive ones.
    threshold : float
        Activations count above it.
    highest : float
        Where the last bin ends.
    tokens : ndarray of int64 [G, L]
        Tokens with a filled slot.
    left_out : ndarray of int64 [G, L]
        Of those, tokens without activations: their weights sum to 0 and were to be divided by that, or all their
        scores are 0.
    activations : ndarray of int64 [G, L, E]
        Activations, counted or not.
    counts : ndarray of int64 [G, L, E]
        Activations that count.
    totals : ndarray of float64 [G, L, E]
        Their sum.
    maxima : ndarray of float64 [G, L, E]
        The largest of them; 0 where there is none.
    histogram : ndarray of int64 [L, E, bins]
        All activations, counted or not, by value: bins of equal width from 0 to `highest`. A bin owns its lower edge,
        the last one its upper edge, too; activation x is in bin ``int(x * (bins / highest))``.
    below, above : ndarray of int64 [L, E]
        Activations that are in no bin: negative, and larger than `highest`.
    """

    layers: IndexArray
    n_experts: IndexArray
    threshold: float
    highest: float
    tokens: IndexArray
    left_out: IndexArray
    activations: IndexArray
    counts: IndexArray
    totals: Float64Array
    maxima: Float64Array
    histogram: IndexArray
    below: IndexArray
    above: IndexArray

    def __add__(self, other: object) -> ActivationSums:
        if not isinstance(other, ActivationSums):
            return NotImplemented
        return add_up("sums", self, other, layout=_LAYOUT, largest=("maxima",))


def sum_activations(
    expert_ids: npt.NDArray[np.int16],
    expert_weights: npt.NDArray[Any] | None = None,
    router_logits: npt.NDArray[Any] | None = None,
    *,
    n_experts: int | npt.ArrayLike,
    passive_experts: int | npt.ArrayLike = 0,
    top_k: int | npt.ArrayLike | None = None,
    signed_weights: bool | npt.ArrayLike = False,
    scoring: str | Sequence[str] | None = None,
    activation: Activation = "weights",
    threshold: float = 0.1,
    layers: Sequence[int] | None = None,
    groups: npt.ArrayLike | None = None,
    n_groups: int | None = None,
    n_bins: int = 100,
    highest: float = 1.0,
    n_threads: int | None = None,
    progress: Progress = False,
) -> ActivationSums:
    """Sum up how strongly each expert is active on the tokens of each group, in one pass over a trace.

    The arrays may be mapped from files larger than memory: they are read once, in order. The result is the same, to
    the last bit, for every thread count.

    Parameters
    ----------
    expert_ids : ndarray of int16 [T, L, k]
        The expert in each slot of each token, -1 where it is empty.
    expert_weights : ndarray of float16 or float32 [T, L, k], optional
        Weights as the router returned them; needed for weights.
    router_logits : ndarray of float16 or float32 [T, L, E], optional
        What the router computed; needed for probs.
    n_experts : int or array-like of int [L]
        Experts that each layer's router can choose, passive ones among them.
    passive_experts : int or array-like of int [L], default 0
        How many of them, the last ones, do nothing: they have no activation.
    top_k : int or array-like of int [L], optional
        Slots of each layer, where it has fewer than the array; those past them must be empty.
    signed_weights : bool or array-like of bool [L], default False
        Whether a layer's weights may be negative.
    scoring : str or sequence of str [L], optional
        What the logits mean, as a dump says it; needed for probs.
    activation : {"weights", "renormalized", "probs"}
        The activation of an expert on a token: its weight w; w divided by the sum over the token's filled slots; or
        its share of the router's full distribution, which every expert has on every token. The slots of an expert that
        a token chose twice are one activation.
    threshold : float, default 0.1
        An activation counts if it is larger; from 0 on, and below 1 for renormalized and probs, which cannot be larger.
        Weights are compared in their own precision, in which 0.1 is not above 0.1.
    layers : sequence of int, optional
        Which layers, 0..L-1; all by default.
    groups : array-like of int [T], optional
        The group of each token, such as its domain, from 0 on.
    n_groups : int, optional
        How many groups there are; by default, one more than the largest of `groups`.
    n_bins, highest : int, float
        The histogram of all activations: so many bins from 0 to `highest`.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable, default False
        True shows a bar on stderr; a callable is called with ``(done, total)``.

    Returns
    -------
    ActivationSums
        Counts and sums for each layer, or for each group and layer.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arguments that are not accepted, or do not fit each other.
    DataError
        An id that is no expert's, or a weight or logit that is not accepted: the first one.

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import sum_activations
    >>> ids = np.array([[[0, 2]], [[2, 1]], [[2, -1]]], dtype=np.int16)
    >>> weights = np.array([[[0.75, 0.25]], [[0.5, 0.0625]], [[0.5, 0]]], dtype=np.float32)
    >>> sums = sum_activations(ids, weights, n_experts=4, groups=[0, 0, 1])
    >>> sums.totals[:, 0]
    array([[0.75, 0.  , 0.75, 0.  ],
           [0.  , 0.  , 0.5 , 0.  ]])
    """
    ids = check_ids(expert_ids)
    n_tokens, n_layers, slots = ids.shape
    if activation not in _KINDS:
        raise ArgumentError(f"activation: {activation!r}; accepted: 'weights', 'renormalized', 'probs'")
    experts, passive = check_experts(n_experts, passive_experts, n_layers)
    chosen = check_layer_numbers(layers, n_layers)
    if activation == "probs":
        if router_logits is None:
            raise ArgumentError("router_logits: None; accepted: logits, for activation='probs'")
        numbers: FloatArray = check_logits(router_logits, (n_tokens, n_layers), max(experts))
    elif expert_weights is None:
        raise ArgumentError(f"expert_weights: None; accepted: weights, for activation={activation!r}")
    else:
        numbers = check_weights(expert_weights, ids.shape)
    group_ids, group_count = check_groups(groups, n_groups, n_tokens)
    request = Request(
        activation=activation,
        expert_ids=ids,
        numbers=numbers,
        layers=chosen,
        n_experts=experts,
        passive_experts=passive,
        top_k=check_slots(top_k, n_layers, slots),
        signed_weights=check_signs(signed_weights, n_layers),
        scoring=_check_scoring(scoring, n_layers, chosen) if activation == "probs" else ["probabilities"] * n_layers,
        groups=group_ids,
        n_groups=group_count,
        threshold=check_threshold(threshold, 1.0 if activation != "weights" else None),
        n_bins=_check_bins(n_bins),
        highest=_check_highest(highest),
    )
    return _sum(request, n_threads, progress)


def sum_dense_activations(
    activations: npt.ArrayLike,
    *,
    threshold: float = 0.1,
    groups: npt.ArrayLike | None = None,
    n_groups: int | None = None,
    n_bins: int = 100,
    highest: float = 1.0,
    n_threads: int | None = None,
    progress: Progress = False,
) -> ActivationSums:
    """Sum up activations that are an array with a number for every token and expert of one layer.

    Parameters
    ----------
    activations : ndarray of float16, float32 or float64 [T, E]
        From 0 on. A zero is no activation: the token did not choose the expert. A row of zeros is no token.
    threshold, groups, n_groups, n_bins, highest, n_threads, progress
        As for `sum_activations`.

    Returns
    -------
    ActivationSums
        Of one layer.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arguments that are not accepted, or do not fit each other.
    DataError
        An activation that is NaN, infinite or negative: the first one.

    Examples
    --------
    >>> import numpy as np
    >>> sums = sum_dense_activations(np.array([[0.75, 0.25, 0.0], [0.5, 0.0625, 0.0]]))
    >>> sums.totals, sums.counts
    (array([[1.25, 0.25, 0.  ]]), array([[2, 1, 0]]))
    """
    numbers = check_activations(activations)
    group_ids, group_count = check_groups(groups, n_groups, len(numbers))
    request = Request(
        activation="dense",
        expert_ids=None,
        numbers=numbers[:, np.newaxis, :],
        layers=[0],
        n_experts=[numbers.shape[1]],
        passive_experts=[0],
        top_k=[0],
        signed_weights=[False],
        scoring=["probabilities"],
        groups=group_ids,
        n_groups=group_count,
        threshold=check_threshold(threshold, None),
        n_bins=_check_bins(n_bins),
        highest=_check_highest(highest),
    )
    return _sum(request, n_threads, progress)


def check_activations(activations: npt.ArrayLike) -> FloatArray:
    """Return activations as `sum_dense_activations` takes them, but for their values."""
    found = check_float_array("activations", activations)
    if found.ndim != 2 or not 1 <= found.shape[1] <= MOST_EXPERTS:
        raise ShapeError(f"activations: shape {found.shape}; accepted: [T, E], with 1 to {MOST_EXPERTS:,} experts")
    return found


def check_threshold(threshold: float, below: float | None) -> float:
    """Return a threshold of activations as a float.

    Parameters
    ----------
    threshold : float
        As it was given.
    below : float or None
        What activations cannot exceed; None where nothing is known of that.
    """
    accepted = "a number from 0 on" if below is None else f"a number from 0 to below {below:g}"
    message = f"threshold: {threshold!r}; accepted: {accepted}, of which 0.01 to 0.3 are mostly of use"
    if not is_real(threshold):
        raise ArgumentError(message)
    found = float(threshold)
    if not math.isfinite(found) or found < 0 or (below is not None and found >= below):
        raise ArgumentError(message)
    return found


def round_threshold(threshold: float, dtype: np.dtype[Any]) -> float:
    """Return a threshold in the precision of what is compared with it, as numpy and torch compare.

    Examples
    --------
    >>> import numpy as np
    >>> bool(np.float32(0.1) > 0.1), float(np.float32(0.1)) > round_threshold(0.1, np.dtype(np.float32))
    (False, False)
    """
    with np.errstate(over="ignore"):
        return float(dtype.type(threshold))


def _sum(request: Request, n_threads: int | None, progress: Progress) -> ActivationSums:
    threads = check_threads(n_threads)
    given = request.threshold
    if request.activation in ("weights", "dense"):
        request = request._replace(threshold=round_threshold(given, request.numbers.dtype))
    with progress_callback(progress, "activations") as callback:
        found = _core.sum_activations(request, n_threads=threads, progress=callback)
    if request.groups is None:
        whole = ("histogram", "below", "above")
        found = {name: array if name in whole else array[0] for name, array in found.items()}
    active = np.array(request.n_experts, dtype=np.int64) - np.array(request.passive_experts, dtype=np.int64)
    chosen = np.array(request.layers, dtype=np.int64)
    return ActivationSums(chosen, active[chosen], given, request.highest, **found)


def _check_scoring(scoring: str | Sequence[str] | None, n_layers: int, chosen: list[int]) -> list[str]:
    accepted = f"accepted for activation='probs': {', '.join(name for name in SCORINGS if name != 'other')}"
    if scoring is None:
        raise ArgumentError(f"scoring: None; {accepted}")
    words = check_scoring(scoring, n_layers)
    for layer in chosen:
        if words[layer] == "other":
            raise ArgumentError(f"scoring: 'other' of layer {layer} tells no full distribution; {accepted}")
    return words


def _check_bins(n_bins: int) -> int:
    count = check_count("n_bins", n_bins, f"an integer from 1 to {_MOST_BINS}")
    if not 1 <= count <= _MOST_BINS:
        raise ArgumentError(f"n_bins: {count}; accepted: 1 to {_MOST_BINS}")
    return count


def _check_highest(highest: float) -> float:
    if is_real(highest) and math.isfinite(highest) and highest > 0:
        return float(highest)
    raise ArgumentError(f"highest: {highest!r}; accepted: a number above 0")

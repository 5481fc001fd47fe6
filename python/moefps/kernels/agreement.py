"""How much two traces of the same tokens agree: sums over pairs of tokens, in one pass over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moefps import _core
from moefps._progress import progress_callback
from moefps._typing import Float64Array, IndexArray, Progress
from moefps.errors import ArgumentError, DtypeError, ShapeError
from moefps.kernels._arguments import check_layer_numbers, check_threads
from moefps.kernels._merging import add_up
from moefps.kernels._traces import (
    check_experts,
    check_groups,
    check_ids,
    check_integers,
    check_layout,
    check_signs,
    check_slots,
)

_LAYOUT = ("n_experts", "top_k")


class Side(NamedTuple):
    """One of the two traces, checked; Rust reads these attributes."""

    ids: npt.NDArray[np.int16]
    weights: npt.NDArray[Any] | None
    rows: IndexArray | None


class Comparison(NamedTuple):
    """The arguments of a comparison, checked; Rust reads these attributes."""

    a: Side
    b: Side
    n_experts: list[int]
    passive_experts: list[int]
    top_k: list[int]
    signed_weights: list[bool]
    layers: list[int]
    groups: npt.NDArray[np.uint32] | None
    n_groups: int
    require_shares: bool
    usage: bool


@dataclass(frozen=True, eq=False)
class ChoiceSums:
    """What pairs of tokens of two traces were reduced to: exact counts (int64) and sums (float64), by layer.

    L layers, k slots, E experts of the layer that has most, without passive ones. All arrays but the first two have a
    first axis G more if the sums were made with groups. S is the set of experts that a token chose, ŵ a weight divided
    by the sum of the token's weights, summed by expert where a token chose one twice. Sums of one layout are those of
    all pairs together: `a + b`. Means are sums over `pairs`, or over `pairs_with_shares` from `tv_sums` on.

    Attributes
    ----------
    n_experts : ndarray of int64 [L]
        Experts of each layer, without passive ones.
    top_k : ndarray of int64 [L]
        Slots of each layer.
    pairs : ndarray of int64 [L]
        Pairs of tokens that both have a filled slot. They all count, or with ``require_shares`` those with shares.
    common_experts : ndarray of int64 [L]
        Experts that both tokens of a pair chose, summed over pairs.
    experts_a, experts_b : ndarray of int64 [L]
        Experts that each of them chose, summed: the sizes of Sa and of Sb.
    equal_sets : ndarray of int64 [L]
        Pairs with Sa = Sb.
    jaccard_sums : ndarray of float64 [L]
        Σ of the Jaccard index of Sa and Sb: how many both chose by how many any of them chose.
    pairs_without_shares : ndarray of int64 [L] or None
        Pairs where ŵ is not defined on both sides, since the weights of a token sum to 0 or one of them is negative.
        None without weights, as all below but the activations.
    pairs_of_same_first : ndarray of int64 [L] or None
        Pairs whose slots with the largest weight, the lowest of equals, are on one expert.
    common_top5 : ndarray of int64 [L] or None
        Σ of how many of their first five experts, by weight (of equals the lowest slot), are the same. To be divided
        by 5, or by k where a layer has fewer slots.
    tv_sums : ndarray of float64 [L] or None
        Σ of the total variation ½ Σ abs(ŵa - ŵb).
    js_sums : ndarray of float64 [L] or None
        Σ of the Jensen-Shannon divergence of ŵa and ŵb to base 2, from 0 to 1.
    entropy_sums_a, entropy_sums_b : ndarray of float64 [L] or None
        Σ H(ŵ), in nats.
    neff_sums_a, neff_sums_b : ndarray of float64 [L] or None
        Σ exp H(ŵ).
    margin_sums_a, margin_sums_b : ndarray of float64 [L] or None
        Σ of the largest ŵ less the second largest, which is 0 where a token has one expert; says nothing for k = 1.
    activations_a, activations_b : ndarray of int64 [L, E] or None
        Slots on each expert, over the pairs that count. None without ``usage``, as all below.
    share_sums_a, share_sums_b : ndarray of float64 [L, E] or None
        Σ ŵ on each expert, over the pairs with shares.
    """

    n_experts: IndexArray
    top_k: IndexArray
    pairs: IndexArray
    common_experts: IndexArray
    experts_a: IndexArray
    experts_b: IndexArray
    equal_sets: IndexArray
    jaccard_sums: Float64Array
    pairs_without_shares: IndexArray | None = None
    pairs_of_same_first: IndexArray | None = None
    common_top5: IndexArray | None = None
    tv_sums: Float64Array | None = None
    js_sums: Float64Array | None = None
    entropy_sums_a: Float64Array | None = None
    entropy_sums_b: Float64Array | None = None
    neff_sums_a: Float64Array | None = None
    neff_sums_b: Float64Array | None = None
    margin_sums_a: Float64Array | None = None
    margin_sums_b: Float64Array | None = None
    activations_a: IndexArray | None = None
    activations_b: IndexArray | None = None
    share_sums_a: Float64Array | None = None
    share_sums_b: Float64Array | None = None

    @property
    def pairs_with_shares(self) -> IndexArray | None:
        """Pairs where ŵ is defined on both sides, [L]; None without weights."""
        return None if self.pairs_without_shares is None else self.pairs - self.pairs_without_shares

    def __add__(self, other: object) -> ChoiceSums:
        if not isinstance(other, ChoiceSums):
            return NotImplemented
        return add_up("sums", self, other, layout=_LAYOUT)


def compare_choices(
    ids_a: npt.NDArray[np.int16],
    weights_a: npt.NDArray[Any] | None,
    ids_b: npt.NDArray[np.int16],
    weights_b: npt.NDArray[Any] | None,
    *,
    n_experts: int | npt.ArrayLike,
    passive_experts: int | npt.ArrayLike = 0,
    top_k: int | npt.ArrayLike | None = None,
    signed_weights: bool | npt.ArrayLike = False,
    layers: Sequence[int] | None = None,
    rows_a: npt.ArrayLike | None = None,
    rows_b: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    n_groups: int | None = None,
    require_shares: bool = False,
    usage: bool = True,
    n_threads: int | None = None,
    progress: Progress = False,
) -> ChoiceSums:
    """Compare what the tokens of one trace chose with what the same tokens of another chose, in one pass.

    The arrays may be mapped from files larger than memory. The result is the same, to the last bit, for every number
    of threads; exchanging the traces exchanges what is said of each, and changes nothing else.

    Parameters
    ----------
    ids_a, ids_b : ndarray of int16 [Ta, L, k] and [Tb, L, k]
        The expert in each slot of each token, -1 where it is empty. A slot on a passive expert is as if empty.
    weights_a, weights_b : ndarray of float16 or float32, of the same shapes, or None
        Weights as the routers returned them; those of empty slots are not looked at. Without them, what needs weights
        is None; they are given for both sides or for none.
    n_experts : int or array-like of int [L]
        Experts that each layer's router can choose, passive ones among them.
    passive_experts : int or array-like of int [L], default 0
        How many of them, the last ones, do nothing.
    top_k : int or array-like of int [L], optional
        Slots of each layer, where it has fewer than the arrays; those past them must be empty.
    signed_weights : bool or array-like of bool [L], default False
        Whether a layer's weights may be negative.
    layers : sequence of int, optional
        Which layers, 0..L-1, in which order; all of them when not given.
    rows_a, rows_b : array-like of int [P], optional
        The token rows of each pair, in any order, also repeatedly; without them, pair p is row p. Rows that lie close
        together are read fastest.
    groups : array-like of int [P], optional
        The group of each pair, such as its sample, from 0 on; all is then summed for each.
    n_groups : int, optional
        How many groups there are; by default, one more than the largest of `groups`.
    require_shares : bool, default False
        Whether pairs without shares count nowhere. Else they count in what needs no shares.
    usage : bool, default True
        Whether to count how often each expert is chosen, [L, E] of counts and sums for each side and group.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable, default False
        True shows a bar on stderr; a callable is called with ``(done, total)``.

    Returns
    -------
    ChoiceSums
        Counts and sums for each layer, or for each group and layer.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arguments that are not accepted, or do not fit each other.
    DataError
        A row that no trace has, an id that is no expert's, or a weight that is NaN, infinite, or negative where none
        may be: the first one.

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import compare_choices
    >>> ids_a = np.array([[[0, 2]], [[1, 3]]], dtype=np.int16)
    >>> ids_b = np.array([[[2, 0]], [[3, 0]]], dtype=np.int16)
    >>> weights = np.full((2, 1, 2), 0.5, dtype=np.float32)
    >>> sums = compare_choices(ids_a, weights, ids_b, weights, n_experts=4)
    >>> sums.common_experts, sums.equal_sets, sums.tv_sums
    (array([3]), array([1]), array([0.5]))
    """
    ids = check_ids(ids_a, "ids_a"), check_ids(ids_b, "ids_b")
    n_layers, slots = ids[0].shape[1:]
    if ids[0].shape[1:] != ids[1].shape[1:]:
        raise ShapeError(f"ids_b: shape {ids[1].shape}; accepted: [Tb, {n_layers}, {slots}], as ids_a has it")
    weights = _check_both_weights(weights_a, weights_b, ids)
    rows = _check_rows("rows_a", rows_a), _check_rows("rows_b", rows_b)
    n_pairs = _count_pairs(ids, rows)
    experts, passive = check_experts(n_experts, passive_experts, n_layers)
    if require_shares and weights[0] is None:
        raise ArgumentError("require_shares: True without weights; accepted: False, or True with weights")
    group_ids, group_count = check_groups(groups, n_groups, n_pairs)
    chosen = check_layer_numbers(layers, n_layers)
    comparison = Comparison(
        Side(ids[0], weights[0], rows[0]),
        Side(ids[1], weights[1], rows[1]),
        experts,
        passive,
        check_slots(top_k, n_layers, slots),
        check_signs(signed_weights, n_layers),
        chosen,
        group_ids,
        group_count,
        bool(require_shares),
        bool(usage),
    )
    threads = check_threads(n_threads)
    with progress_callback(progress, "comparing") as callback:
        found = _core.compare_choices(comparison, n_threads=threads, progress=callback)
    if group_ids is None:
        found = {name: array[0] for name, array in found.items()}
    active = np.array(experts, dtype=np.int64) - np.array(passive, dtype=np.int64)
    return ChoiceSums(n_experts=active[chosen], top_k=np.array(comparison.top_k, dtype=np.int64)[chosen], **found)


def _check_both_weights(
    weights_a: Any, weights_b: Any, ids: tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]
) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
    if (weights_a is None) != (weights_b is None):
        name = "weights_a" if weights_a is None else "weights_b"
        raise ArgumentError(f"{name}: None, where the other side has weights; accepted: both, or None for both")
    if weights_a is None:
        return None, None
    accepted = (np.dtype(np.float16), np.dtype(np.float32))
    found = check_layout("weights_a", weights_a, accepted), check_layout("weights_b", weights_b, accepted)
    for side, weights, of in zip("ab", found, ids, strict=True):
        if weights.shape != of.shape:
            raise ShapeError(f"weights_{side}: shape {weights.shape}; accepted: {of.shape}, as ids_{side} has it")
    return found


def _check_rows(name: str, values: npt.ArrayLike | None) -> IndexArray | None:
    if values is None:
        return None
    found = check_integers(name, values)
    if found.ndim != 1:
        raise ShapeError(f"{name}: shape {found.shape}; accepted: [P], a token row for each pair")
    if found.dtype == np.uint64 and found.size and int(found.max()) > np.iinfo(np.int64).max:
        raise DtypeError(f"{name}: {int(found.max())}; accepted: integers of 64 bits, with a sign")
    return np.ascontiguousarray(found, dtype=np.int64)


def _count_pairs(ids: tuple[npt.NDArray[np.int16], ...], rows: tuple[IndexArray | None, ...]) -> int:
    """Return P, of which both sides must have as many."""
    counts = [len(of) if some is None else len(some) for of, some in zip(ids, rows, strict=True)]
    if counts[0] != counts[1]:
        names = [f"{'ids' if some is None else 'rows'}_{side}" for side, some in zip("ab", rows, strict=True)]
        raise ShapeError(
            f"{names[1]}: {counts[1]} pairs, {names[0]} has {counts[0]}; accepted: as many, or rows_a and rows_b"
        )
    return counts[0]

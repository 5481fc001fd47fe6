"""What routing metrics are made of: a trace of token-level routing, reduced to histograms and sums in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from moefps import _core
from moefps._progress import progress_callback
from moefps._typing import Float64Array, IndexArray, Progress
from moefps.errors import ArgumentError, ShapeError
from moefps.kernels._arguments import check_threads
from moefps.kernels._merging import add_up
from moefps.kernels._traces import (
    check_experts,
    check_flags,
    check_groups,
    check_ids,
    check_integers,
    check_signs,
    check_slots,
    check_weights,
)

Coactivation: TypeAlias = Literal["none", "whole", "groups"]

_LAYOUT = ("n_experts", "top_k")


class Trace(NamedTuple):
    """The arguments of a count, checked; Rust reads these attributes."""

    expert_ids: npt.NDArray[np.int16]
    expert_weights: npt.NDArray[Any] | None
    n_experts: list[int]
    passive_experts: list[int]
    top_k: list[int]
    signed_weights: list[bool]
    follows: npt.NDArray[np.bool_] | None
    groups: npt.NDArray[np.uint32] | None
    n_groups: int
    coactivation: str


@dataclass(frozen=True, eq=False)
class RoutingCounts:
    """What a trace was reduced to: exact counts (int64) and sums (float64).

    L layers, k slots, E experts of the layer that has most, without passive ones; layers with fewer have zeros. All
    arrays have a first axis G more if the count was made with groups. w is a weight, ŵ the weight divided by its sum
    over the token's filled slots; a slot on a passive expert counts as empty. Sums of `RoutingCounts` of one layout are
    those of both traces together: `a + b`.

    Attributes
    ----------
    n_experts : ndarray of int64 [L]
        Experts of each layer, without passive ones.
    top_k : ndarray of int64 [L]
        Slots of each layer.
    filled_slots : ndarray of int64 [L, k + 1]
        Tokens with 0, 1, ... k filled slots.
    passive_slots : ndarray of int64 [L]
        Slots on passive experts.
    activations : ndarray of int64 [L, E]
        Slots on each expert, c_e.
    tokens_by_expert : ndarray of int64 [L, E]
        Tokens that chose each expert, once or more often.
    coactivation : ndarray of int64 [L, E, E] or None
        Tokens that chose both; on the diagonal, those that chose the one. With groups, it has the axis G only if
        ``coactivation="groups"`` was asked for.
    first_choices : ndarray of int64 [L, E] or None
        Tokens whose slot with the largest weight, the lowest of equals, is on each expert. None without weights, as all
        up to `entropy_tokens`.
    weight_sums, share_sums : ndarray of float64 [L, E] or None
        Σ w and Σ ŵ of the slots on each expert.
    tokens_without_shares : ndarray of int64 [L] or None
        Tokens with a filled slot whose weights sum to 0: they have no ŵ and are left out of what needs it.
    entropy_sums : ndarray of float64 [L] or None
        Σ H(ŵ) / ln k_t over tokens with k_t >= 2 filled slots.
    entropy_tokens : ndarray of int64 [L] or None
        Tokens in that sum; those with a negative weight are not.
    pairs : ndarray of int64 [L] or None
        Pairs of neighbours that both have a filled slot, and are of one group. None where `follows` was not given, as
        all below.
    pairs_with_common : ndarray of int64 [L] or None
        Pairs with an expert in common.
    common_experts : ndarray of int64 [L] or None
        Σ of how many experts they have in common.
    jaccard_sums : ndarray of float64 [L] or None
        Σ of the Jaccard index of their sets of experts.
    pairs_of_same_first : ndarray of int64 [L] or None
        Pairs whose slots with the largest weight are on one expert. None without weights, as all below.
    locality_sums : ndarray of float64 [L] or None
        Σ 1 - TV(ŵ, ŵ').
    pairs_without_shares : ndarray of int64 [L] or None
        Pairs that are not in that sum, since a token of theirs has no ŵ.
    """

    n_experts: IndexArray
    top_k: IndexArray
    filled_slots: IndexArray
    passive_slots: IndexArray
    activations: IndexArray
    tokens_by_expert: IndexArray
    coactivation: IndexArray | None = None
    first_choices: IndexArray | None = None
    weight_sums: Float64Array | None = None
    share_sums: Float64Array | None = None
    tokens_without_shares: IndexArray | None = None
    entropy_sums: Float64Array | None = None
    entropy_tokens: IndexArray | None = None
    pairs: IndexArray | None = None
    pairs_with_common: IndexArray | None = None
    common_experts: IndexArray | None = None
    jaccard_sums: Float64Array | None = None
    pairs_of_same_first: IndexArray | None = None
    locality_sums: Float64Array | None = None
    pairs_without_shares: IndexArray | None = None

    @property
    def rows(self) -> IndexArray:
        """Rows of the trace, with or without a filled slot, [L]."""
        total: IndexArray = self.filled_slots.sum(axis=-1)
        return total

    @property
    def tokens(self) -> IndexArray:
        """Tokens with a filled slot, T, [L]."""
        total: IndexArray = self.filled_slots[..., 1:].sum(axis=-1)
        return total

    @property
    def assignments(self) -> IndexArray:
        """Filled slots, A, [L]."""
        total: IndexArray = self.activations.sum(axis=-1)
        return total

    @property
    def empty_slots(self) -> IndexArray:
        """Slots that hold -1, of those that the layer has, [L]."""
        return self.rows * self.top_k - self.assignments - self.passive_slots

    def __add__(self, other: object) -> RoutingCounts:
        if not isinstance(other, RoutingCounts):
            return NotImplemented
        return add_up("counts", self, other, layout=_LAYOUT)


def count_routing(
    expert_ids: npt.NDArray[np.int16],
    expert_weights: npt.NDArray[Any] | None = None,
    *,
    n_experts: int | npt.ArrayLike,
    passive_experts: int | npt.ArrayLike = 0,
    top_k: int | npt.ArrayLike | None = None,
    signed_weights: bool | npt.ArrayLike = False,
    follows: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    n_groups: int | None = None,
    coactivation: Coactivation = "whole",
    n_threads: int | None = None,
    progress: Progress = False,
) -> RoutingCounts:
    """Reduce a trace to what routing metrics are made of, in one pass.

    The arrays may be mapped from files larger than memory: they are read once, in order. The result is the same, to
    the last bit, for every thread count.

    Parameters
    ----------
    expert_ids : ndarray of int16 [T, L, k]
        The expert in each slot of each token, -1 where it is empty.
    expert_weights : ndarray of float16 or float32 [T, L, k], optional
        Weights as the router returned them; those of empty slots are not looked at. Without them, what needs weights
        is None.
    n_experts : int or array-like of int [L]
        Experts that each layer's router can choose, passive ones among them.
    passive_experts : int or array-like of int [L], default 0
        How many of them, the last ones, do nothing.
    top_k : int or array-like of int [L], optional
        Slots of each layer, where it has fewer than the array; those past them must be empty.
    signed_weights : bool or array-like of bool [L], default False
        Whether a layer's weights may be negative.
    follows : array-like of bool [T], optional
        Whether each row is the next token, in the same sequence, of the row before it; see `find_neighbours`. Without
        it, neighbours are not counted.
    groups : array-like of int [T], optional
        The group of each token, such as its sample or its domain, from 0 on; all is then counted for each.
    n_groups : int, optional
        How many groups there are; by default, one more than the largest of `groups`.
    coactivation : {"whole", "groups", "none"}
        Whether to count pairs of experts: over all tokens, for each group, or not.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable, default False
        True shows a bar on stderr; a callable is called with ``(done, total)``.

    Returns
    -------
    RoutingCounts
        Counts and sums for each layer, or for each group and layer.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arguments that are not accepted, or do not fit each other.
    DataError
        An id that is no expert's, or a weight that is NaN, infinite, or negative where none may be: the first one.

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import count_routing
    >>> ids = np.array([[[0, 2]], [[2, 1]], [[2, -1]]], dtype=np.int16)
    >>> counts = count_routing(ids, n_experts=4, follows=[False, True, True])
    >>> counts.activations
    array([[1, 1, 3, 0]])
    >>> counts.common_experts
    array([2])
    """
    ids = check_ids(expert_ids)
    n_tokens, n_layers, slots = ids.shape
    weights = None if expert_weights is None else check_weights(expert_weights, ids.shape)
    experts, passive = check_experts(n_experts, passive_experts, n_layers)
    group_ids, group_count = check_groups(groups, n_groups, n_tokens)
    if coactivation not in ("none", "whole", "groups"):
        raise ArgumentError(f"coactivation: {coactivation!r}; accepted: 'whole', 'groups', 'none'")
    if coactivation == "groups" and group_ids is None:
        raise ArgumentError("coactivation: 'groups' without groups; accepted: 'whole', 'none', or 'groups' with groups")
    trace = Trace(
        ids,
        weights,
        experts,
        passive,
        check_slots(top_k, n_layers, slots),
        check_signs(signed_weights, n_layers),
        None if follows is None else check_flags("follows", follows, n_tokens),
        group_ids,
        group_count,
        coactivation,
    )
    threads = check_threads(n_threads)
    with progress_callback(progress, "counting") as callback:
        found = _core.count_routing(trace, n_threads=threads, progress=callback)
    if group_ids is None:
        found = {name: array[0] for name, array in found.items()}
    elif coactivation == "whole":
        found["coactivation"] = found["coactivation"][0]
    active = np.array(experts, dtype=np.int64) - np.array(passive, dtype=np.int64)
    return RoutingCounts(n_experts=active, top_k=np.array(trace.top_k, dtype=np.int64), **found)


def find_neighbours(offsets: npt.ArrayLike, positions: npt.ArrayLike | None = None) -> npt.NDArray[np.bool_]:
    """Say of each token whether the row before it is the token before it, as `count_routing` takes it.

    Parameters
    ----------
    offsets : array-like of int [N + 1]
        Where sequences start, from 0 on; the last one is the number of tokens, T.
    positions : array-like of int [T], optional
        Where each token stands in its sequence. Without them, none is missing.

    Returns
    -------
    ndarray of bool [T]
        Whether each row is in the sequence of the row before, and one position on.

    Examples
    --------
    >>> from moefps.kernels import find_neighbours
    >>> find_neighbours([0, 2, 5], [0, 1, 0, 1, 4])
    array([False,  True, False,  True, False])
    """
    starts = check_integers("offsets", offsets)
    if starts.ndim != 1 or len(starts) == 0:
        raise ShapeError(f"offsets: shape {starts.shape}; accepted: [N + 1]")
    if starts[0] != 0 or (starts[1:] < starts[:-1]).any():
        raise ArgumentError("offsets: start elsewhere than at 0, or go down; accepted: ascending integers from 0 on")
    n_tokens = int(starts[-1])
    follows = np.ones(n_tokens, dtype=np.bool_)
    follows[starts[starts < n_tokens]] = False
    if positions is not None:
        where = check_integers("positions", positions)
        if where.shape != (n_tokens,):
            raise ShapeError(f"positions: shape {where.shape}; accepted: ({n_tokens},), one for each token")
        follows[1:] &= np.diff(where.astype(np.int64)) == 1
    return follows

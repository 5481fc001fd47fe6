"""What routers' full distributions add up to: entropies, margins, mean probabilities and the z-loss, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moefps import _core
from moefps._progress import progress_callback
from moefps._typing import Float64Array, IndexArray, Progress
from moefps.kernels._arguments import check_threads
from moefps.kernels._merging import add_up
from moefps.kernels._traces import check_experts, check_groups, check_ids, check_logits, check_scoring, check_slots

_LAYOUT = ("n_experts", "scoring")


class LogitTrace(NamedTuple):
    """The arguments of a sum, checked; Rust reads these attributes."""

    expert_ids: npt.NDArray[np.int16]
    router_logits: npt.NDArray[Any]
    n_experts: list[int]
    passive_experts: list[int]
    top_k: list[int]
    scoring: list[str]
    groups: npt.NDArray[np.uint32] | None
    n_groups: int


@dataclass(frozen=True, eq=False)
class LogitSums:
    """Sums over a trace's tokens of what their full distributions over experts, p, say.

    L layers, E experts of the layer that has most, without passive ones; layers with fewer have zeros. All arrays but
    `n_experts` have a first axis G more if the sums were made with groups. Sums are of the tokens that have a slot on
    an expert of the layer, passive ones aside, and a distribution. Where a count of tokens is 0, there is nothing to
    divide by: what would be a mean is not defined. Sums of `LogitSums` of one layout are those of both traces
    together: `a + b`.

    Attributes
    ----------
    n_experts : ndarray of int64 [L]
        Experts of each layer, without passive ones.
    scoring : tuple of str
        How each layer's logits became p.
    tokens : ndarray of int64 [L]
        Tokens in the sums; 0 in layers whose scoring is ``other``.
    tokens_without_probs : ndarray of int64 [L]
        Tokens with a slot on an expert that have no distribution, since the scores of all experts are 0, such as when
        all are masked: they are left out.
    prob_sums : ndarray of float64 [L, E]
        Σ p of each expert.
    entropy_sums : ndarray of float64 [L]
        Σ H(p), in nats.
    z_sums : ndarray of float64 [L]
        Σ (logsumexp of the logits)², over all columns, passive experts' among them.
    z_tokens : ndarray of int64 [L]
        Tokens in that sum: `tokens`, but 0 where the router gave probabilities, which are no logits.
    selection_margin_sums : ndarray of float64 [L]
        Σ of the smallest p among the chosen experts, less the largest among the others.
    selection_margin_tokens : ndarray of int64 [L]
        Tokens in that sum: those that did not choose all experts.
    top1_margin_sums : ndarray of float64 [L]
        Σ of the largest p less the second largest, chosen or not.
    top1_margin_tokens : ndarray of int64 [L]
        Tokens in that sum: `tokens`, but 0 where there is a single expert.
    """

    n_experts: IndexArray
    scoring: tuple[str, ...]
    tokens: IndexArray
    tokens_without_probs: IndexArray
    prob_sums: Float64Array
    entropy_sums: Float64Array
    z_sums: Float64Array
    z_tokens: IndexArray
    selection_margin_sums: Float64Array
    selection_margin_tokens: IndexArray
    top1_margin_sums: Float64Array
    top1_margin_tokens: IndexArray

    def __add__(self, other: object) -> LogitSums:
        if not isinstance(other, LogitSums):
            return NotImplemented
        return add_up("sums", self, other, layout=_LAYOUT)


def sum_logits(
    expert_ids: npt.NDArray[np.int16],
    router_logits: npt.NDArray[Any],
    *,
    n_experts: int | npt.ArrayLike,
    passive_experts: int | npt.ArrayLike = 0,
    top_k: int | npt.ArrayLike | None = None,
    scoring: str | Sequence[str],
    groups: npt.ArrayLike | None = None,
    n_groups: int | None = None,
    n_threads: int | None = None,
    progress: Progress = False,
) -> LogitSums:
    """Add up what the routers' full distributions say, in one pass.

    The arrays may be mapped from files larger than memory: they are read once, in order. Arithmetic is in float64, and
    the result is the same, to the last bit, for every thread count.

    Passive experts are no experts here: p is a distribution over the real ones, the router's divided by what it gives
    to them, so that it sums to 1 over the experts that the sums are about. Where there are passive experts, that is
    not the distribution that the model computed; without them it is. Their logits do count in the z-loss, which is
    about the numbers that a router puts out.

    Parameters
    ----------
    expert_ids : ndarray of int16 [T, L, k]
        The expert in each slot of each token, -1 where it is empty. A token counts in a layer where it has a slot on an
        expert that is not passive.
    router_logits : ndarray of float16 or float32 [T, L, E]
        What the routers computed, -inf where they masked an expert. Columns past a layer's experts, and tokens with no
        filled slot in a layer, are not looked at.
    n_experts : int or array-like of int [L]
        Experts that each layer's router can choose, passive ones among them.
    passive_experts : int or array-like of int [L], default 0
        How many of them, the last ones, do nothing.
    top_k : int or array-like of int [L], optional
        Slots of each layer, where it has fewer than the array; those past them must be empty.
    scoring : str or sequence of str [L]
        How logits become p, as a dump's layers say it: ``softmax`` and ``softmax_topk`` take the softmax over all
        experts, ``sigmoid`` sigmoids divided by their sum, ``sqrt_softplus`` and ``hash`` square roots of softplus
        divided by their sum. ``probabilities`` are p already; they have to sum to 1 (float16: ±0.01, float32: ±0.0001),
        and are divided by their sum. ``other`` tells no distribution: such a layer is not read.
    groups : array-like of int [T], optional
        The group of each token, such as its sample or its domain, from 0 on; all is then summed for each.
    n_groups : int, optional
        How many groups there are; by default, one more than the largest of `groups`.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable, default False
        True shows a bar on stderr; a callable is called with ``(done, total)``.

    Returns
    -------
    LogitSums
        Sums for each layer, or for each group and layer.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arguments that are not accepted, or do not fit each other.
    DataError
        An id that is no expert's, a logit that is NaN or infinite (unless -inf), a probability below 0, or
        probabilities that do not sum to 1: the first one.

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import sum_logits
    >>> ids = np.array([[[0]], [[2]]], dtype=np.int16)
    >>> logits = np.log(np.array([[[4, 1, 3]], [[1, 1, 6]]], dtype=np.float32))
    >>> sums = sum_logits(ids, logits, n_experts=3, scoring="softmax")
    >>> sums.prob_sums.round(6).tolist()
    [[0.625, 0.25, 1.125]]
    >>> sums.selection_margin_sums.round(6) / sums.selection_margin_tokens
    array([0.375])
    """
    ids = check_ids(expert_ids)
    n_tokens, n_layers, slots = ids.shape
    experts, passive = check_experts(n_experts, passive_experts, n_layers)
    group_ids, group_count = check_groups(groups, n_groups, n_tokens)
    trace = LogitTrace(
        ids,
        check_logits(router_logits, (n_tokens, n_layers), max(experts)),
        experts,
        passive,
        check_slots(top_k, n_layers, slots),
        check_scoring(scoring, n_layers),
        group_ids,
        group_count,
    )
    threads = check_threads(n_threads)
    with progress_callback(progress, "summing") as callback:
        found = _core.sum_logits(trace, n_threads=threads, progress=callback)
    if group_ids is None:
        found = {name: array[0] for name, array in found.items()}
    active = np.array(experts, dtype=np.int64) - np.array(passive, dtype=np.int64)
    return LogitSums(active, tuple(trace.scoring), **found)

"""Windows of tokens, caches of experts, and the vocabulary of experts: what a trace of routing says of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moefps import _core
from moefps._progress import progress_callback
from moefps._typing import IndexArray, Progress
from moefps.errors import ArgumentError, DataError, ShapeError
from moefps.kernels._arguments import check_count, check_threads, is_real
from moefps.kernels._merging import add_up
from moefps.kernels._traces import check_experts, check_flags, check_ids, check_integers, check_slots

_LONGEST_WINDOW = 4096
_MOST_TOP = 1000
_MOST_TOKEN_ID = 2**31 - 1
_LAYOUT = ("n_experts", "top_k", "window", "cache_sizes")


class Choices(NamedTuple):
    """The ids of a trace and its layers, checked; Rust reads these attributes."""

    expert_ids: npt.NDArray[np.int16]
    n_experts: list[int]
    passive_experts: list[int]
    top_k: list[int]

    @property
    def active(self) -> IndexArray:
        """Experts of each layer, without passive ones."""
        return np.array(self.n_experts, dtype=np.int64) - np.array(self.passive_experts, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class SegmentCounts:
    """What the windows of a trace, and caches of experts, were reduced to: exact counts (int64).

    L layers, E experts of the layer that has most, without passive ones; m the tokens of a window. Sums of
    `SegmentCounts` of one layout are those of both traces together: `a + b`.

    Attributes
    ----------
    n_experts : ndarray of int64 [L]
        Experts of each layer, without passive ones.
    top_k : ndarray of int64 [L]
        Slots of each layer, k.
    window : int
        m.
    windows : ndarray of int64 [L]
        Windows: m tokens that follow each other, each with a filled slot in the layer.
    histograms : ndarray of int64 [L, E, m + 1] or None
        Windows in 0, 1, ... m tokens of which each expert is active; zeros for experts that a layer does not have.
    cache_sizes : ndarray of int64 [L] or None
        Experts that each layer's cache holds: rho * k rounded, a half upward, but no more than there are. None where
        no caches were followed, as the two below.
    hits : ndarray of int64 [L] or None
        Activations whose expert was in the cache.
    activations : ndarray of int64 [L] or None
        Activations: tokens that use an expert, once or in several slots, over all experts.
    """

    n_experts: IndexArray
    top_k: IndexArray
    window: int
    windows: IndexArray
    histograms: IndexArray | None = None
    cache_sizes: IndexArray | None = None
    hits: IndexArray | None = None
    activations: IndexArray | None = None

    def __add__(self, other: object) -> SegmentCounts:
        if not isinstance(other, SegmentCounts):
            return NotImplemented
        return add_up("counts", self, other, layout=_LAYOUT)


@dataclass(frozen=True, eq=False)
class VocabularyCounts:
    """Which experts the tokens of each token id choose: exact counts.

    L layers, E experts of the layer that has most, without passive ones. A token counts in the layers where it has a
    filled slot, and a token id in those where enough of its tokens do.

    Attributes
    ----------
    n_experts : ndarray of int64 [L]
        Experts of each layer, without passive ones.
    tokens : ndarray of int64 [L]
        Tokens with a filled slot.
    tokens_without_id : ndarray of int64 [L]
        Those of them that have no token id.
    tokens_counted : ndarray of int64 [L]
        Those of them whose token id is counted; the rest have one that is too rare.
    n_token_ids : ndarray of int64 [L]
        Token ids that are counted.
    top_token_ids : ndarray of int64 [L, E, top]
        For each expert the token ids x with the largest share N_{x,e} / N_x, which is more than 0, the lowest of
        equals first; -1 where there are no more.
    top_counts, top_totals : ndarray of int64 [L, E, top]
        Their N_{x,e} and N_x; 0 where there are no more.
    entries : dict of ndarray or None
        All N_{x,e} that are not 0, if they were asked for, by layer, token id and expert: ``layer``, ``token_id``,
        ``expert`` (int32), ``count`` (N_{x,e}) and ``total`` (N_x, uint32).
    """

    n_experts: IndexArray
    tokens: IndexArray
    tokens_without_id: IndexArray
    tokens_counted: IndexArray
    n_token_ids: IndexArray
    top_token_ids: IndexArray
    top_counts: IndexArray
    top_totals: IndexArray
    entries: dict[str, npt.NDArray[Any]] | None = None


def count_segments(
    expert_ids: npt.NDArray[np.int16],
    *,
    n_experts: int | npt.ArrayLike,
    follows: npt.ArrayLike,
    passive_experts: int | npt.ArrayLike = 0,
    top_k: int | npt.ArrayLike | None = None,
    window: int = 16,
    rho: float | None = 2.0,
    histograms: bool = True,
    n_threads: int | None = None,
    progress: Progress = False,
) -> SegmentCounts:
    """Count in how many tokens of a window each expert is active, and what a cache of experts would have found.

    What the segment metrics of arXiv 2505.16056 are made of. A sequence is of rows that follow each other and all have
    a filled slot in the layer: a token without one parts its neighbours, and an expert that a token chooses twice
    counts once. Windows are of m tokens inside a sequence, one for each token that ends one.

    A layer's cache is empty where a sequence starts. When a token is routed, the experts that it uses and that are in
    the cache are hits. Then the others are loaded: while there is room they are added; after that each takes the place
    of the cached expert that the token does not use and that the fewest of the next m tokens use, the highest id of
    equals. Where there are more of them than places, since the cache is smaller than what the token uses, those are
    kept that most of the next m tokens use, the lowest ids of equals, and the others are used without being kept.

    The array may be mapped from a file larger than memory: it is read once, in order. The result is the same for every
    thread count.

    Parameters
    ----------
    expert_ids : ndarray of int16 [T, L, k]
        The expert in each slot of each token, -1 where it is empty.
    n_experts : int or array-like of int [L]
        Experts that each layer's router can choose, passive ones among them.
    follows : array-like of bool [T]
        Whether each row is the next token, in the same sequence, of the row before it; see `find_neighbours`.
    passive_experts : int or array-like of int [L], default 0
        How many experts, the last ones, do nothing; a slot on one counts as empty.
    top_k : int or array-like of int [L], optional
        Slots of each layer, where it has fewer than the array; those past them must be empty.
    window : int, default 16
        Tokens of a window, m, and those that a cache looks ahead.
    rho : float, optional, default 2.0
        Size of a layer's cache as a multiple of its slots: it holds ``floor(rho * k + 0.5)`` experts. None follows no
        caches.
    histograms : bool, default True
        Whether to count windows by how often an expert is active.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable, default False
        True shows a bar on stderr; a callable is called with ``(done, total)``.

    Returns
    -------
    SegmentCounts

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arguments that are not accepted, or do not fit each other.
    DataError
        An id that is no expert's: the first one.

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import count_segments, find_neighbours
    >>> ids = np.array([[[0, 1]], [[0, 2]], [[0, 1]]], dtype=np.int16)
    >>> counts = count_segments(ids, n_experts=4, follows=find_neighbours([0, 3]), window=2, rho=1)
    >>> counts.histograms[0].tolist()
    [[0, 0, 2], [0, 2, 0], [0, 2, 0], [2, 0, 0]]
    >>> counts.hits, counts.activations
    (array([2]), array([6]))
    """
    choices = _check_choices(expert_ids, n_experts, passive_experts, top_k)
    flags = check_flags("follows", follows, len(choices.expert_ids))
    size = _check_between("window", window, 1, _LONGEST_WINDOW)
    cache_sizes = None if rho is None else _cache_sizes(rho, choices)
    threads = check_threads(n_threads)
    with progress_callback(progress, "windows of tokens") as callback:
        found = _core.count_segments(
            choices,
            flags,
            window=size,
            histograms=bool(histograms),
            cache_sizes=cache_sizes,
            n_threads=threads,
            progress=callback,
        )
    return SegmentCounts(
        n_experts=choices.active,
        top_k=np.array(choices.top_k, dtype=np.int64),
        window=size,
        cache_sizes=None if cache_sizes is None else np.array(cache_sizes, dtype=np.int64),
        **found,
    )


def count_vocabulary(
    expert_ids: npt.NDArray[np.int16],
    token_ids: npt.ArrayLike,
    *,
    n_experts: int | npt.ArrayLike,
    passive_experts: int | npt.ArrayLike = 0,
    top_k: int | npt.ArrayLike | None = None,
    min_count: int = 10,
    top: int = 10,
    entries: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> VocabularyCounts:
    """Count which experts the tokens of each token id choose.

    N_x is how many tokens of a layer, with a filled slot there, have the token id x, and N_{x,e} how many of those
    choose expert e, in one slot or several. The result is the same for every thread count. Counters take up to 0.5 GB;
    where those of all layers are more, the trace is read several times.

    Parameters
    ----------
    expert_ids : ndarray of int16 [T, L, k]
        The expert in each slot of each token, -1 where it is empty.
    token_ids : array-like of int [T]
        The id of each token, -1 for none: such tokens are left out, and counted.
    n_experts : int or array-like of int [L]
        Experts that each layer's router can choose, passive ones among them.
    passive_experts : int or array-like of int [L], default 0
        How many experts, the last ones, do nothing; a slot on one counts as empty.
    top_k : int or array-like of int [L], optional
        Slots of each layer, where it has fewer than the array; those past them must be empty.
    min_count : int, default 10
        A token id with a smaller N_x is left out of the layer.
    top : int, default 10
        How many token ids to give for each expert.
    entries : bool, default False
        Whether to give all N_{x,e} that are not 0, 20 bytes each.
    n_threads : int, optional
        All cores by default.
    progress : bool or callable, default False
        True shows a bar on stderr; a callable is called with ``(done, total)``.

    Returns
    -------
    VocabularyCounts

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arguments that are not accepted, or do not fit each other.
    DataError
        An id that is no expert's, the first one; a token id below -1 or above 2^31 - 1.

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import count_vocabulary
    >>> ids = np.array([[[0, 1]], [[0, 2]], [[0, 1]]], dtype=np.int16)
    >>> counts = count_vocabulary(ids, [7, 7, 5], n_experts=4, min_count=1, top=2)
    >>> counts.top_token_ids[0].tolist()
    [[5, 7], [5, 7], [7, -1], [-1, -1]]
    >>> counts.top_counts[0, 1], counts.top_totals[0, 1]
    (array([1, 1]), array([1, 2]))
    """
    choices = _check_choices(expert_ids, n_experts, passive_experts, top_k)
    least = _check_between("min_count", min_count, 1, _MOST_TOKEN_ID)
    most = _check_between("top", top, 1, _MOST_TOP)
    threads = check_threads(n_threads)
    words = _check_token_ids(token_ids, len(choices.expert_ids))
    with progress_callback(progress, "vocabulary") as callback:
        found = _core.count_vocabulary(
            choices, words, min_count=least, top=most, entries=bool(entries), n_threads=threads, progress=callback
        )
    columns = ("layer", "token_id", "expert", "count", "total")
    table = {name: found.pop(f"entry_{name}") for name in columns} if entries else None
    return VocabularyCounts(n_experts=choices.active, entries=table, **found)


def _check_choices(expert_ids: Any, n_experts: Any, passive_experts: Any, top_k: Any) -> Choices:
    ids = check_ids(expert_ids)
    _, n_layers, slots = ids.shape
    experts, passive = check_experts(n_experts, passive_experts, n_layers)
    return Choices(ids, experts, passive, check_slots(top_k, n_layers, slots))


def _check_between(name: str, value: Any, least: int, most: int) -> int:
    accepted = f"an integer from {least} to {most}"
    number = check_count(name, value, accepted)
    if isinstance(value, bool) or not least <= number <= most:
        raise ArgumentError(f"{name}: {value!r}; accepted: {accepted}")
    return number


def _cache_sizes(rho: Any, choices: Choices) -> list[int]:
    """Return how many experts each layer's cache holds."""
    if not is_real(rho) or not 0 < rho < math.inf:
        raise ArgumentError(f"rho: {rho!r}; accepted: a number > 0, or None")
    sizes = []
    for layer, (active, k) in enumerate(zip(choices.active.tolist(), choices.top_k, strict=True)):
        size = math.floor(min(float(rho) * k + 0.5, active))
        if size < 1 <= k:
            raise ArgumentError(
                f"rho: {rho!r} gives layer {layer}, of {k} slots, a cache of no expert; accepted: at least {0.5 / k:g}"
            )
        sizes.append(size)
    return sizes


def _check_token_ids(token_ids: npt.ArrayLike, n_tokens: int) -> npt.NDArray[np.int32]:
    found = check_integers("token_ids", token_ids)
    if found.shape != (n_tokens,):
        raise ShapeError(f"token_ids: shape {found.shape}; accepted: ({n_tokens},), one for each token")
    if n_tokens and (int(found.min()) < -1 or int(found.max()) > _MOST_TOKEN_ID):
        row = int(np.argmax((found < -1) | (found > _MOST_TOKEN_ID)))
        raise DataError(
            f"token_ids: token row {row} is {found[row]}; accepted: 0 to {_MOST_TOKEN_ID}, or -1 for no token id"
        )
    return np.ascontiguousarray(found, dtype=np.int32)

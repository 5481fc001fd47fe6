"""Expert ids and weights that follow from router logits, where nobody recorded what the router chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import DataError
from moefps.io.dump.scoring import full_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["choose"]


def choose(
    logits: npt.NDArray[Any], top_k: int, scoring: str, widths: Sequence[int], *, name: str, first_token: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """Take the largest logits of every token and layer, and their weights.

    Parameters
    ----------
    logits : float ndarray of shape [n, L, E]
        Router logits of some tokens.
    top_k : int
        Experts that a token chooses, at most the experts of the narrowest layer.
    scoring : str
        ``softmax``, ``sigmoid``, ``sqrt_softplus``: the chosen experts' share of the distribution over all experts;
        ``softmax_topk``: the softmax over the chosen ones; ``probabilities``: the numbers as they are.
    widths : sequence of int [L]
        Experts of each layer; what lies beyond does not count.
    name : str
        The file, for messages.
    first_token : int
        Number of the first of these tokens, for messages.

    Returns
    -------
    ids : ndarray of int16 [n, L, k]
        From the largest logit down; of equal ones the lowest id first. -1 where all others are masked with minus
        infinity.
    weights : ndarray of float32 [n, L, k]

    Raises
    ------
    DataError
        A logit is NaN or plus infinity, or a probability negative.

    Examples
    --------
    >>> import numpy as np
    >>> ids, weights = choose(np.log([[[2.0, 1.0, 2.0]]]), 2, "softmax", [3], name="a.npy", first_token=0)
    >>> ids.tolist(), weights.tolist()
    ([[[0, 2]]], [[[0.4000000059604645, 0.4000000059604645]]])
    """
    _check_values(logits, scoring, widths, name, first_token)
    scores = logits.astype(np.float64)
    for i, width in enumerate(widths):
        scores[:, i, width:] = -np.inf
    ids = np.empty((*scores.shape[:2], top_k), dtype=np.int64)
    left = scores.copy()
    for slot in range(top_k):
        ids[:, :, slot] = left.argmax(axis=2)
        np.put_along_axis(left, ids[:, :, slot, np.newaxis], -np.inf, axis=2)
    chosen = np.take_along_axis(scores, ids, axis=2)
    if scoring == "softmax_topk":
        weights = full_probabilities(chosen, "softmax")
    elif scoring == "probabilities":
        weights = chosen
    else:
        weights = np.take_along_axis(full_probabilities(scores, scoring), ids, axis=2)
    # A masked expert is never chosen; where all scores vanish, nobody has a share.
    is_masked = np.isneginf(chosen)
    weights = np.where(is_masked | np.isnan(weights), 0.0, weights)
    return np.where(is_masked, -1, ids).astype(np.int16), weights.astype(np.float32)


def _check_values(logits: npt.NDArray[Any], scoring: str, widths: Sequence[int], name: str, first_token: int) -> None:
    bad = ~((logits >= 0) & (logits < np.inf)) if scoring == "probabilities" else ~(logits < np.inf)
    if not bad.any():
        return
    for i, width in enumerate(widths):
        bad[:, i, width:] = False
    token, layer, expert = (int(place) for place in np.unravel_index(int(bad.argmax()), bad.shape))
    if not bad[token, layer, expert]:
        return
    value = logits[token, layer, expert]
    is_share = scoring == "probabilities"
    accepted = "probabilities of at least 0" if is_share else "numbers, or minus infinity for a masked expert"
    raise DataError(
        f"{name}: token {first_token + token}, layer {layer}, expert {expert} is {value:g}; accepted: {accepted}"
    )

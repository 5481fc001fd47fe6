"""From a router's logits to its full distribution over experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from moefps._typing import Float64Array

__all__ = ["full_probabilities", "has_full_probabilities"]


def has_full_probabilities(scoring: str) -> bool:
    """Whether logits of this scoring tell a full distribution over experts.

    Examples
    --------
    >>> has_full_probabilities("softmax"), has_full_probabilities("other")
    (True, False)
    """
    return scoring in _RULES


def full_probabilities(logits: npt.NDArray[Any], scoring: str) -> Float64Array:
    """Give the router's distribution over all experts.

    Parameters
    ----------
    logits : ndarray [..., E]
        What the router computed, floats.
    scoring : str
        ``softmax`` and ``softmax_topk``: softmax over all experts. ``sigmoid``: sigmoids divided by their sum.
        ``sqrt_softplus`` and ``hash``: square roots of softplus, divided by their sum. ``probabilities``: the
        numbers as they are.

    Returns
    -------
    ndarray of float64 [..., E]
        Rows that sum to 1; NaN where every expert has score 0, so that there is no distribution.

    Raises
    ------
    ArgumentError
        The scoring tells no distribution.

    Examples
    --------
    >>> full_probabilities(np.log([[1.0, 3.0]]), "softmax").round(3).tolist()
    [[0.25, 0.75]]
    """
    rule = _RULES.get(scoring)
    if rule is None:
        raise ArgumentError(f"scoring: {scoring!r} tells no full distribution; accepted: {', '.join(_RULES)}")
    return rule(np.asarray(logits, dtype=np.float64))


def _softmax(x: Float64Array) -> Float64Array:
    with np.errstate(invalid="ignore"):
        # A row of minus infinities alone gives NaN, as it should.
        scores = np.exp(x - x.max(axis=-1, keepdims=True))
    return _normalised(scores)


def _sigmoid(x: Float64Array) -> Float64Array:
    small = np.exp(-np.abs(x))
    return _normalised(np.where(x >= 0, 1.0, small) / (1.0 + small))


def _sqrt_softplus(x: Float64Array) -> Float64Array:
    return _normalised(np.sqrt(np.logaddexp(x, 0.0)))


def _as_they_are(x: Float64Array) -> Float64Array:
    return x


def _normalised(scores: Float64Array) -> Float64Array:
    sums = scores.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Float64Array = scores / sums
    return shares


_RULES: dict[str, Callable[[Float64Array], Float64Array]] = {
    "softmax": _softmax,
    "softmax_topk": _softmax,
    "sigmoid": _sigmoid,
    "sqrt_softplus": _sqrt_softplus,
    "hash": _sqrt_softplus,
    "probabilities": _as_they_are,
}

"""How a router turns logits into scores: which rule, and the whole distribution that it implies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from moefps.errors import ArgumentError
from moefps.kernels import SCORINGS

__all__ = ["SCORINGS", "check_scoring", "full_probabilities", "has_full_probabilities", "scoring_of"]


def full_probabilities(logits: Tensor, scoring: str) -> Tensor:
    """Spread each token over all experts, as the router's own scoring does.

    Parameters
    ----------
    logits : Tensor, shape (..., E)
        What the router computed before its choice.
    scoring : str
        ``softmax`` and ``softmax_topk``: the softmax. ``sigmoid``: the sigmoids divided by their sum.
        ``sqrt_softplus`` and ``hash``: square roots of softplus, divided by their sum. ``probabilities``: `logits` as
        they are.

    Returns
    -------
    Tensor, float32, shape (..., E)
        Rows that sum to 1. Correction biases and group limits, which steer the choice only, are not in them.

    Raises
    ------
    ArgumentError
        The scoring has no distribution over all experts (``other``), or is not known.

    Examples
    --------
    >>> import torch
    >>> full_probabilities(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), "sigmoid")
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    if not has_full_probabilities(scoring):
        raise ArgumentError(f"scoring={scoring!r} has no distribution over all experts; accepted: those but 'other'")
    scores = logits.float()
    if scoring == "probabilities":
        return scores
    if scoring in {"softmax", "softmax_topk"}:
        return scores.softmax(-1)
    scores = scores.sigmoid() if scoring == "sigmoid" else nn.functional.softplus(scores).sqrt()
    return scores / scores.sum(-1, keepdim=True)


def has_full_probabilities(scoring: str) -> bool:
    """Tell whether a scoring gives a distribution over all experts, not over the chosen ones alone.

    Examples
    --------
    >>> has_full_probabilities("softmax_topk"), has_full_probabilities("other")
    (True, False)
    """
    return check_scoring(scoring) != "other"


def check_scoring(scoring: str) -> str:
    """Return a scoring that is known.

    Raises
    ------
    ArgumentError
        It is not.
    """
    if scoring not in SCORINGS:
        raise ArgumentError(f"scoring={scoring!r} is not known; accepted: {', '.join(SCORINGS)}")
    return scoring


def scoring_of(module: nn.Module, block: nn.Module | None = None) -> str:
    """Tell a router's scoring by the functions that its forward calls, ``other`` where they do not tell.

    Routers of one form differ in nothing but this, and none says it in an attribute that others have too. What is read
    are the names in the compiled code, which needs no source file, and in their order: a softmax after the top-k is a
    softmax over the chosen ones. A router that returns bare logits leaves the rest to the block around it.
    """
    for name in ("score_fn", "scoring_function"):
        found = _of_activation(getattr(module, name, None))
        if found is not None:
            return found
    # Cohere2 MoE has both functions in its code, and an attribute that says which.
    chosen = getattr(module, "expert_selection_fn", None)
    scoring = _of_names(_names(type(module).forward), chosen)
    if scoring == "other" and block is not None:
        route = getattr(type(block), "route_tokens_to_experts", None)
        scoring = "other" if route is None else _of_names(_names(route), None)
    return scoring


def _of_names(names: Sequence[str], chosen: str | None) -> str:
    """Tell a scoring by the names of functions, in the order of their first use."""
    unused = set() if chosen is None else {"softmax", "sigmoid"} - {chosen}
    called = [name for name in names if name in {"softmax", "sigmoid", "topk"} - unused]
    if "sigmoid" in called:
        return "other" if "softmax" in called else "sigmoid"
    if "softmax" not in called:
        return "other"
    return "softmax_topk" if "topk" in called[: called.index("softmax")] else "softmax"


def _of_activation(activation: Any) -> str | None:
    """Tell the scoring of an activation that a router keeps as an attribute."""
    name = getattr(activation, "__name__", type(activation).__name__).lower().removesuffix("activation")
    return {"sigmoid": "sigmoid", "sqrtsoftplus": "sqrt_softplus", "softmax": "softmax"}.get(name)


def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    """List the attributes and globals that a function uses, in the order of their first use."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return () if code is None else code.co_names

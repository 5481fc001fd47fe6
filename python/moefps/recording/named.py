"""Reading the routers that users name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moefps.errors import ArgumentError, CaptureError
from moefps.recording.readings import Emit, Form, Site, describe, reading
from moefps.recording.scoring import scoring_of
from moefps.recording.specs import OUTPUTS, RouterSpec

__all__ = ["named_form"]


def named_form(spec: RouterSpec, module: nn.Module) -> Form:
    """Say how a module is read that a specification names.

    Raises
    ------
    ArgumentError
        Weights must be computed, and nothing says by which scoring.
    """
    scoring = spec.scoring or scoring_of(module)
    if spec.weights is None and scoring == "other":
        raise ArgumentError(
            f"router {spec.target!r}: no output of weights; then scoring= must say how they come from the logits"
        )

    def attach(site: Site, emit: Emit) -> list[RemovableHandle]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            logits, weights, ids = (_output(spec, site, output, name) for name in OUTPUTS)
            if ids is None:
                ids = logits.topk(spec.top_k, dim=-1).indices
            if weights is None:
                weights = _chosen(logits, ids, scoring)
            if not ids.shape == weights.shape or (logits is not None and logits.shape[:-1] != ids.shape[:-1]):
                raise CaptureError(
                    f"{site.path}: logits, weights and ids of router {spec.target!r} do not fit together: "
                    f"{describe((logits, weights, ids))}; accepted: [n, E], [n, k] and [n, k]"
                )
            emit(reading(ids, weights, logits))

        return [site.module.register_forward_hook(hook)]

    top_k = spec.top_k
    return Form(
        attach,
        scoring=scoring,
        top_k=None if top_k is None else lambda _: top_k,
        derived=spec.ids is None,
    )


def _output(spec: RouterSpec, site: Site, output: Any, name: str) -> Any:
    """Pick one of the outputs."""
    index: int | None = getattr(spec, name)
    if index is None:
        return None
    parts = output if isinstance(output, (tuple, list)) else (output,)
    if index >= len(parts):
        raise CaptureError(
            f"{site.path}: {name}={index} of router {spec.target!r}; the module returned {describe(output)}"
        )
    part = parts[index]
    if not isinstance(part, Tensor) or part.ndim < 2 or part.is_floating_point() == (name == "ids"):
        raise CaptureError(
            f"{site.path}: {name}={index} of router {spec.target!r} is {describe(part)}; "
            f"accepted: a tensor of {'whole' if name == 'ids' else 'floating point'} numbers, a row a token"
        )
    return part


def _chosen(logits: Tensor, ids: Tensor, scoring: str) -> Tensor:
    """Compute the weights of the chosen experts, where a model does not hand them out."""
    scores = logits.float()
    if scoring == "softmax":
        return scores.softmax(-1).gather(-1, ids)
    chosen = scores.gather(-1, ids)
    if scoring == "softmax_topk":
        return chosen.softmax(-1)
    if scoring == "sigmoid":
        return chosen.sigmoid()
    return chosen if scoring == "probabilities" else nn.functional.softplus(chosen).sqrt()

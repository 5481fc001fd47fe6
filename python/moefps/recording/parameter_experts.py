"""Which parameters are experts, and which are matrices that a token's vector is multiplied by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from moefps.recording.parameter_attention import HEAD_BY_HEAD

if TYPE_CHECKING:
    from moefps.recording.routers import Router

__all__ = ["ExpertTensor", "expert_tensors", "multiplied_numbers"]

# Tables of two and more dimensions that are added to or scale others, number by number.
_ELEMENTWISE = re.compile(r"(?:bias|scale|norm|embeddings?|pos_embed|A_log|_ape)$")
_NUMBERED = re.compile(r"\d+$")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ExpertTensor(NamedTuple):
    """A parameter of experts.

    Attributes
    ----------
    module : nn.Module
        The module that has it.
    name : str
        Its name there.
    parameter : nn.Parameter
        The parameter.
    copies : int or None
        How many experts are stacked in it; None where it belongs to one of them.
    """

    module: nn.Module
    name: str
    parameter: nn.Parameter
    copies: int | None


def expert_tensors(router: Router, n_experts: int) -> Iterator[ExpertTensor]:
    """Go through the parameters of a router's experts.

    They are in the module ``experts`` beside the router, stacked along the first axis or numbered; or, where there is
    no such module, stacked somewhere else in the router's block.

    Parameters
    ----------
    router : Router
        The router.
    n_experts : int
        Experts that it chooses among, passive ones included.
    """
    counts = tuple(dict.fromkeys((n_experts - router.passive_experts, n_experts)))
    block = router.site.parent
    experts = getattr(block, "experts", None)
    if isinstance(experts, nn.Module):
        yield from _beside(experts, counts)
        return
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_table = isinstance(module, nn.Embedding)
            if (parameter.ndim > 2 or is_table) and parameter.shape[0] in counts:
                yield ExpertTensor(module, name, parameter, parameter.shape[0])


def _beside(experts: nn.Module, counts: tuple[int, ...]) -> Iterator[ExpertTensor]:
    """Go through a module ``experts``; what is in it once for all experts is left out."""
    for path, module in experts.named_modules():
        is_one = _NUMBERED.search(path.partition(".")[0]) is not None
        for name, parameter in module.named_parameters(recurse=False):
            if is_one:
                yield ExpertTensor(module, name, parameter, None)
            elif parameter.ndim > 1:
                # Either one matrix an expert, or the rows of one after those of the other.
                copies = next((count for count in counts if parameter.shape[0] == count), None)
                if copies is None and parameter.shape[0] % counts[0] == 0:
                    copies = counts[0]
                if copies is not None:
                    yield ExpertTensor(module, name, parameter, copies)


def multiplied_numbers(module: nn.Module, name: str, parameter: nn.Parameter) -> int:
    """Count the numbers of a parameter that a token's vector is multiplied by.

    Parameters
    ----------
    module : nn.Module
        The module that has it.
    name : str
        Its name there.
    parameter : nn.Parameter
        The parameter.

    Returns
    -------
    int
        All of a matrix or convolution; 0 for embeddings, which are looked up, biases, norms and scales.

    Examples
    --------
    >>> linear = nn.Linear(3, 2)
    >>> multiplied_numbers(linear, "weight", linear.weight), multiplied_numbers(linear, "bias", linear.bias)
    (6, 0)
    """
    if isinstance(module, nn.Embedding) or HEAD_BY_HEAD.search(type(module).__name__):
        return 0
    if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
        return parameter.numel() if name == "weight" else 0
    return 0 if parameter.ndim < 2 or _ELEMENTWISE.search(name) else parameter.numel()

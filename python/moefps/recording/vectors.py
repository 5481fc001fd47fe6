"""The vectors with which a router compares tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from moefps.recording.routers import Router

__all__ = ["router_vectors"]


def router_vectors(router: Router) -> Tensor | None:
    """Return the vectors with which a router compares a token, one for each expert.

    Returns
    -------
    Tensor or None, shape [E, d]
        A detached view where the parameter is at hand, a copy on the CPU where accelerate has put it away. None: the
        router has no such vectors, for example because it is a network of its own (zaya, doge).
    """
    if not router.form.has_vectors:
        return None
    names = ("weight", *(f"{name}.weight" for name, _ in router.module.named_children()))
    weights = [(name, parameter) for name, parameter in router.module.named_parameters() if name in names]
    for name, parameter in weights:
        # The router of inkling weighs its shared experts too, in rows after those that it chooses among.
        extra = getattr(router.module, "n_shared_experts", 0) if name == "weight" else 0
        if parameter.ndim == 2 and parameter.shape[0] == (router.n_experts or 0) + extra:
            return _at_hand(router.module, name, parameter)[: router.n_experts]
    return None


def _at_hand(module: nn.Module, name: str, parameter: nn.Parameter) -> Tensor:
    """Return a parameter's values, fetched where accelerate keeps them outside the module."""
    if not parameter.is_meta:
        return parameter.detach()
    # accelerate is there where a model was put away with it.
    from accelerate.utils import align_module_device

    owner = module.get_submodule(name.rpartition(".")[0])
    with align_module_device(owner, torch.device("cpu")):
        return module.get_parameter(name).detach().clone()

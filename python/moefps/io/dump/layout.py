"""The arrays of a dump: their dtypes, and their shapes by the sizes in the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps.io.dump.manifest import LayerInfo

__all__ = ["DTYPES", "LAYOUTS", "TOKEN_ARRAYS", "array_shape", "widths"]

IDS: np.dtype[Any] = np.dtype(np.int16)
HALF: np.dtype[Any] = np.dtype(np.float16)
SINGLE: np.dtype[Any] = np.dtype(np.float32)

DTYPES: dict[str, tuple[np.dtype[Any], ...]] = {
    "expert_ids": (IDS,),
    "expert_weights": (HALF, SINGLE),
    "router_logits": (HALF, SINGLE),
    "fingerprints": (SINGLE,),
    "hidden_states": (HALF, SINGLE),
    "router_vectors": (HALF, SINGLE),
}
"""What each array may be made of."""

LAYOUTS = {
    "expert_ids": "[T, L, k]",
    "expert_weights": "[T, L, k]",
    "router_logits": "[T, L, E]",
    "fingerprints": "[N, L, E]",
    "hidden_states": "[T, L', d]",
    "router_vectors": "[L, E, d]",
}

TOKEN_ARRAYS = ("expert_ids", "expert_weights", "router_logits", "hidden_states")
"""The arrays with a row for each token."""


def widths(layers: Sequence[LayerInfo]) -> tuple[int, int]:
    """Give k and E of the arrays: the most slots, and the most experts, of any layer; 0 without layers."""
    return max((layer.top_k for layer in layers), default=0), max((layer.n_experts for layer in layers), default=0)


def array_shape(
    name: str, *, n_samples: int, n_tokens: int, top_k: int, layers: Sequence[LayerInfo], n_hidden: int
) -> tuple[int | None, ...]:
    """Give the shape that an array has to have; None where any size will do.

    Parameters
    ----------
    name : str
        The array.
    n_samples, n_tokens, top_k : int
        N, T and k.
    layers : sequence of LayerInfo
        The L layers.
    n_hidden : int
        Layers with hidden states, L'.
    """
    n_layers, n_experts = len(layers), widths(layers)[1]
    shapes: dict[str, tuple[int | None, ...]] = {
        "expert_ids": (n_tokens, n_layers, top_k),
        "expert_weights": (n_tokens, n_layers, top_k),
        "router_logits": (n_tokens, n_layers, n_experts),
        "fingerprints": (n_samples, n_layers, n_experts),
        "hidden_states": (n_tokens, n_hidden, None),
        "router_vectors": (n_layers, n_experts, None),
    }
    return shapes[name]

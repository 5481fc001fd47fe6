"""What a dump says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from moefps.kernels import SCORINGS

__all__ = [
    "ARRAYS",
    "FORMAT",
    "MOST_EXPERTS",
    "SCORINGS",
    "VERSION",
    "FingerprintKind",
    "LayerInfo",
    "Manifest",
]

FORMAT = "moefps-dump"
VERSION = 1

ARRAYS = ("expert_ids", "expert_weights", "router_logits", "fingerprints", "hidden_states", "router_vectors")
"""The arrays that a dump can hold, each a .npy of that name."""

FingerprintKind: TypeAlias = Literal["probs", "weights", "counts"]
KINDS: tuple[str, ...] = get_args(FingerprintKind)

ROUTING_TYPES = ("token_choice", "expert_choice")
STACKS = ("encoder", "decoder", "vision")
STATES = ("writing", "complete")

MOST_EXPERTS = 2**15 - 1
"""Ids are int16, and so is their number: what a dump holds, the kernels take."""


@dataclass(frozen=True)
class LayerInfo:
    """One MoE layer of a dump.

    Attributes
    ----------
    index : int
        Its place in the arrays, 0..L-1.
    path : str
        Path of the router's module in the model; no two layers share one.
    layer : int
        The model's own number of the layer.
    n_experts : int
        Columns that the router can choose, passive ones last.
    top_k : int
        Slots that a token has here.
    passive_experts : int
        How many of the last columns do nothing (identity experts, a skip class).
    scoring : str
        How the router turns logits into weights: one of `SCORINGS`.
    routing_type : {"token_choice", "expert_choice"}
        Who chooses.
    signed_weights : bool
        True where weights may be negative.
    stack : {None, "encoder", "decoder", "vision"}
        The part of the model that the layer belongs to; None where there is only one.
    extra : dict
        Keys of the manifest that this version does not know, kept as they are.
    """

    index: int
    path: str
    layer: int
    n_experts: int
    top_k: int
    passive_experts: int = 0
    scoring: str = "other"
    routing_type: str = "token_choice"
    signed_weights: bool = False
    stack: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Manifest:
    """The manifest of a dump.

    Attributes
    ----------
    state : {"writing", "complete"}
        Whether the dump is whole.
    n_samples, n_tokens : int
        Sizes N and T. While a dump is being written, `n_tokens` is the most that it can become.
    top_k : int
        Slots of a token in the arrays, k: the most of any layer.
    layers : tuple of LayerInfo
        The L layers in order.
    arrays : tuple of str or None
        The arrays that must be there; None where the manifest does not say.
    fingerprint_kind : {"probs", "weights", "counts"} or None
        What ``fingerprints.npy`` holds.
    hidden_layers : tuple of int or None
        The layers whose hidden states were recorded, L' of them.
    model : dict
        What is known of the model: id, revision, type, dtype.
    created : str or None
        When, in ISO 8601, UTC.
    tool_versions : dict
        Versions of what wrote it.
    version : int
        Version of the format, 1.
    extra : dict
        Keys that this version does not know, kept as they are.
    """

    state: str
    n_samples: int
    n_tokens: int
    top_k: int
    layers: tuple[LayerInfo, ...]
    arrays: tuple[str, ...] | None = None
    fingerprint_kind: str | None = None
    hidden_layers: tuple[int, ...] | None = None
    model: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created: str | None = None
    tool_versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    version: int = VERSION
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def n_layers(self) -> int:
        """Number of MoE layers, L."""
        return len(self.layers)

    @property
    def n_experts(self) -> int:
        """Columns of the widest layer, E; 0 without layers."""
        return max((layer.n_experts for layer in self.layers), default=0)

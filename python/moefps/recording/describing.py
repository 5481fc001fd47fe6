"""The header of a dump: what is known of it once the routers have run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor

from moefps.errors import CaptureError
from moefps.io.dump import DumpHeader, LayerInfo
from moefps.recording.collecting import Block, Collector
from moefps.recording.planning import Plan
from moefps.recording.routers import Router, router_vectors
from moefps.recording.state import plain_module

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["dump_header", "router_matrix"]


def dump_header(plan: Plan, collector: Collector, blocks: Sequence[Block]) -> DumpHeader:
    """Describe the dump by what the routers gave in the first batch."""
    layers = tuple(_layer_info(index, router, collector) for index, router in enumerate(plan.routers))
    arrays: dict[str, np.dtype[Any]] = {
        "expert_ids": np.dtype(np.int16),
        "expert_weights": _stored(block.weights for block in blocks if block.hidden is None),
    }
    if plan.keep_logits:
        arrays["router_logits"] = _stored(block.logits for block in blocks)
    if plan.kind is not None:
        arrays["fingerprints"] = np.dtype(np.float32)
    hidden = [block.hidden for block in blocks if block.hidden is not None]
    if plan.taps:
        arrays["hidden_states"] = _stored(hidden)
    if plan.keep_vectors:
        arrays["router_vectors"] = np.dtype(np.float32)
    config = plain_module(plan.model).config
    labels: dict[str, Any] = {}
    if plan.stacks:
        labels["stack"] = plan.stacks
    if plan.n_new:
        labels["generated"] = np.dtype(np.bool_)
        # The last new token was never fed, so it has no row of its own.
        labels["next_token_id"] = np.dtype(np.int32)
    extra: dict[str, Any] = {} if plan.reason_alone is None else {"one_by_one": plan.reason_alone}
    if plan.aligned is not None:
        labels["segment"] = plan.aligned.segment_names
        extra["pairs"] = {"sha256": plan.aligned.tokens.sha256, "condition": plan.aligned.condition}
    return DumpHeader(
        layers=layers,
        arrays=arrays,
        fingerprint_kind=plan.kind,
        hidden_layers=tuple(tap.layer for tap in plan.taps) or None,
        hidden_size=hidden[0].shape[-1] if hidden else None,
        model={
            "id": getattr(config, "_name_or_path", "") or None,
            "revision": getattr(config, "_commit_hash", None),
            "type": getattr(config, "model_type", None),
            "dtype": str(plain_module(plan.model).dtype).removeprefix("torch."),
        },
        plan=plan.settings,
        token_labels=labels,
        tool_versions={"torch": str(torch.__version__), "transformers": transformers.__version__},
        extra=extra,
    )


def router_matrix(plan: Plan) -> npt.NDArray[np.float32]:
    """Put the routers' weight rows into one array [L, E, d]; rows that a router has not are NaN.

    Raises
    ------
    CaptureError
        No router has such rows, or they differ in length.
    """
    vectors = [router_vectors(router) for router in plan.routers]
    sizes = {tuple(vector.shape) for vector in vectors if vector is not None}
    if len({size[1] for size in sizes}) != 1:
        found = "none" if not sizes else " and ".join(str(size) for size in sorted(sizes))
        raise CaptureError(f"router_vectors: the routers have {found}; accepted: rows of one length; leave them out")
    n_experts = max(size[0] for size in sizes)
    matrix = np.full((len(vectors), n_experts, next(iter(sizes))[1]), np.nan, dtype=np.float32)
    for row, vector in zip(matrix, vectors, strict=True):
        if vector is not None:
            row[: vector.shape[0]] = vector.detach().float().cpu().numpy()
    return matrix


def _layer_info(index: int, router: Router, collector: Collector) -> LayerInfo:
    """Describe a layer by its router, and by what that gave where it has run."""
    n_experts, top_k = collector.sizes.get(index, (router.n_experts, router.top_k))
    if n_experts is None or top_k is None:
        raise CaptureError(f"{router.path}: has not run in the first batch, and does not say how many experts it has")
    return LayerInfo(
        index=index,
        path=router.path,
        layer=router.layer,
        n_experts=n_experts,
        top_k=top_k,
        passive_experts=router.passive_experts,
        scoring=router.scoring,
        routing_type=router.routing_type,
        signed_weights=router.signed_weights,
        stack=router.stack,
        extra={"derived_ids": True} if router.derived else {},
    )


def _stored(tensors: Iterable[Tensor | None]) -> np.dtype[Any]:
    """Choose the dtype on disk that holds every value: numpy has no bfloat16."""
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    if torch.float64 in dtypes:
        raise CaptureError("the model computes in float64, which a dump does not hold; load it in float32")
    return np.dtype(np.float16) if dtypes == {torch.float16} else np.dtype(np.float32)

"""Hooks that add up what the routers of a model do, forward by forward, while it trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import CaptureError
from moefps.metrics.analyzer import RoutingAnalyzer
from moefps.metrics.batch import as_numpy

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor, nn

    from moefps.recording.routers import Reading, Router, RouterSpec

__all__ = ["Listener"]

IGNORED_LABEL = -100


class Listener:
    """Hooks on a model and its routers, and the sums of the batches that they saw."""

    def __init__(self, named: tuple[RouterSpec, ...], *, needs_logits: bool, capacity_factor: float) -> None:
        self._named = named
        self._needs_logits = needs_logits
        self._capacity_factor = capacity_factor
        self._handles: list[Any] = []
        self._routers: list[Router] = []
        self._readings: list[list[Reading]] | None = None
        self._inputs: Mapping[str, Any] = {}
        self._analyzer: RoutingAnalyzer | None = None
        self._training = True

    @property
    def is_attached(self) -> bool:
        """Whether there are hooks."""
        return bool(self._handles)

    def layer_names(self) -> list[str]:
        """Name the layers by the model's own numbers."""
        numbers = [router.layer for router in self._routers]
        if len(set(numbers)) == len(numbers):
            return [f"layer_{number}" for number in numbers]
        names = [f"{router.stack}_layer_{router.layer}" for router in self._routers]
        return names if len(set(names)) == len(names) else [router.path for router in self._routers]

    def attach(self, model: nn.Module, *, training: bool) -> None:
        """Put hooks on a model.

        Parameters
        ----------
        model : nn.Module
            The model.
        training : bool
            Whether to listen to the forwards that train it, or else to those in evaluation mode.

        Raises
        ------
        CaptureError
            It has no router.
        """
        from moefps.recording.routers import find_routers

        self._routers = [router for router in find_routers(model, self._named) if router.stack != "vision"]
        if not self._routers:
            raise CaptureError(f"model: {type(model).__name__} has no router; name them with RouterSpec, in routers=")
        self._training = training
        self._analyzer = None
        try:
            for i, router in enumerate(self._routers):
                self._handles += router.attach(partial(self._keep, i))
            self._handles.append(model.register_forward_pre_hook(self._begin, with_kwargs=True))
            self._handles.append(model.register_forward_hook(self._finish))
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._readings = None

    def take(self) -> RoutingAnalyzer:
        """Take all hooks away, and give the sums.

        Raises
        ------
        CaptureError
            There was no forward.
        """
        self.detach()
        analyzer, self._analyzer = self._analyzer, None
        if analyzer is None:
            raise CaptureError("the model's forward was not called in a step; metrics need the model that trains")
        return analyzer

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import torch

        # Trainers of other kinds let the model generate, or score, between the forwards that train it.
        wanted = (module.training and torch.is_grad_enabled()) if self._training else not module.training
        self._readings = [[] for _ in self._routers] if wanted else None
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments if args else kwargs
        self._inputs = {**given, **given.get("kwargs", {})}

    def _keep(self, i: int, reading: Reading) -> None:
        # Closed in the backward, where gradient checkpointing runs the layers again.
        if self._readings is not None:
            self._readings[i].append(reading)

    def _finish(self, module: nn.Module, args: Any, output: Any) -> None:
        readings, self._readings = self._readings, None
        inputs, self._inputs = self._inputs, {}
        if readings is None:
            return
        if self._analyzer is None:
            self._analyzer = RoutingAnalyzer(
                [_count_experts(*both, inputs) for both in zip(self._routers, readings, strict=True)],
                capacity_factor=self._capacity_factor,
                passive_experts=[router.passive_experts for router in self._routers],
                signed_weights=[router.signed_weights for router in self._routers],
            )
        rows = Rows(inputs)
        for i, (router, calls) in enumerate(zip(self._routers, readings, strict=True)):
            for reading in calls:
                keep, offsets = rows.of(router, reading.ids.shape[0])
                self._analyzer.update(
                    _chosen(reading.ids, keep),
                    _chosen(reading.weights, keep),
                    _chosen(reading.logits, keep) if self._needs_logits and reading.logits is not None else None,
                    layer=i,
                    offsets=offsets,
                    scoring=router.scoring,
                )


def _count_experts(router: Router, readings: Sequence[Reading], inputs: Mapping[str, Any]) -> int:
    """Tell how many experts a router has.

    Raises
    ------
    CaptureError
        It was not called and must have been, or nothing tells.
    """
    if not readings:
        covered = router.covers(inputs)
        if covered is None or bool(covered.any()):
            raise CaptureError(
                f"{router.path}: the router was not called; the model bypasses it, as a quantised or fused block does"
            )
    logits = readings[0].logits if readings else None
    n_experts = router.n_experts if logits is None else logits.shape[-1]
    if n_experts is None:
        raise CaptureError(f"{router.path}: nothing says how many experts there are; name it with RouterSpec")
    return n_experts


def _chosen(rows: Tensor, keep: Tensor | None) -> Tensor:
    return rows if keep is None else rows[keep.to(rows.device)]


class Rows:
    """Which rows of a forward's routers are tokens, found once for the routers of a stack."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._inputs = inputs
        self._positions: dict[str | None, tuple[npt.NDArray[np.bool_], npt.NDArray[Any] | None]] = {}
        self._whole: dict[str | None, tuple[Tensor | None, npt.NDArray[Any]]] = {}

    def of(self, router: Router, n_rows: int) -> tuple[Tensor | None, npt.NDArray[Any]]:
        """Give which rows of a router are tokens, None for all of them, and where sequences start among those.

        Raises
        ------
        CaptureError
            The rows are not those of the batch.
        """
        stack = router.stack
        if stack not in self._positions:
            self._positions[stack] = _positions(self._inputs, stack)
        valid, position = self._positions[stack]
        covered = router.covers(self._inputs)
        rows = np.arange(valid.size) if covered is None else np.flatnonzero(as_numpy("positions", covered))
        if n_rows != len(rows):
            raise CaptureError(
                f"{router.path}: the router gave {n_rows:,} rows, expected {len(rows):,} for {valid.shape[0]} "
                f"sequences of {valid.shape[1]:,} positions"
            )
        if covered is not None:
            return _tokens_among(rows, valid, position)
        if stack not in self._whole:
            self._whole[stack] = _tokens_among(rows, valid, position)
        return self._whole[stack]


def _tokens_among(
    rows: npt.NDArray[Any], valid: npt.NDArray[np.bool_], position: npt.NDArray[Any] | None
) -> tuple[Tensor | None, npt.NDArray[Any]]:
    import torch

    width = valid.shape[1]
    kept = valid.reshape(-1)[rows]
    where = rows[kept]
    at = where % width if position is None else position.reshape(-1)[where]
    starts = np.flatnonzero((np.diff(where // width, prepend=-1) != 0) | (np.diff(at, prepend=-2) != 1))
    offsets = np.concatenate([starts, [len(where)]])
    return None if kept.all() else torch.from_numpy(np.flatnonzero(kept)), offsets


def _positions(inputs: Mapping[str, Any], stack: str | None) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any] | None]:
    """Give which positions of a stack are tokens, [B, S], and where each stands in its sequence, if the batch says so.

    Raises
    ------
    CaptureError
        The batch does not tell.
    """
    before = "decoder_" if stack == "decoder" else ""
    shape = next(
        (
            tuple(inputs[name].shape[:2])
            for name in (f"{before}input_ids", f"{before}inputs_embeds", "labels" if before else "")
            if inputs.get(name) is not None
        ),
        None,
    )
    if shape is None:
        raise CaptureError(f"the batch has no {before}input_ids or {before}inputs_embeds, which tell its size")
    mask, labels = inputs.get(f"{before}attention_mask"), inputs.get("labels")
    valid = np.ones(shape, dtype=np.bool_)
    if mask is not None:
        found = as_numpy("attention_mask", mask)
        if found.ndim != 2 or found.shape[0] != shape[0] or found.shape[1] < shape[1]:
            raise CaptureError(
                f"{before}attention_mask: shape {found.shape}; accepted: {shape}, which tells the padding"
            )
        # With a cache, it is about what came before, too.
        valid = found[:, found.shape[1] - shape[1] :] != 0
    elif before and labels is not None and inputs.get("decoder_input_ids") is None:
        # The model feeds its decoder the labels, one later.
        valid[:, 1:] = as_numpy("labels", labels)[:, :-1] != IGNORED_LABEL
    position = inputs.get(f"{before}position_ids")
    if position is None or tuple(position.shape) != shape:
        return valid, None
    return valid, as_numpy("position_ids", position)

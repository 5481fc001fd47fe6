"""From router calls to blocks of rows, on the device that the model runs on.

Nothing here waits for the device: what a hook sees is cut to valid rows, summed up and kept there, and goes to the host
in one piece when the batch is through.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from moefps.errors import CaptureError
from moefps.recording.scoring import full_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.hooks import RemovableHandle

    from moefps.recording.batching import Batch
    from moefps.recording.routers import Reading, Router

__all__ = ["Block", "Collector", "HiddenTap"]


@dataclass(frozen=True, eq=False)
class Block:
    """What the routers of one stack on one device gave for a batch, still on that device.

    Attributes
    ----------
    stack : str or None
        The stack whose valid positions the rows are.
    layers : tuple of int
        Numbers of the routers, in the order of the second dimension.
    ids : Tensor of shape [rows, layers, k]
        int16; -1 is an empty slot.
    weights : Tensor of shape [rows, layers, k]
        As the routers returned them.
    logits : Tensor of shape [rows, layers, E] or None
        Columns that a layer has not are 0.
    fingerprints : Tensor of shape [B, layers, E] or None
        float32; zero where a sample has no filled slot in a layer.
    hidden : Tensor of shape [rows, layers, d] or None
        Hidden states; then ids and weights have no layer.
    """

    stack: str | None
    layers: tuple[int, ...]
    ids: Tensor
    weights: Tensor
    logits: Tensor | None = None
    fingerprints: Tensor | None = None
    hidden: Tensor | None = None


@dataclass(frozen=True, eq=False)
class HiddenTap:
    """A module whose output is the residual stream after one layer.

    Attributes
    ----------
    layer : int
        The model's own layer number.
    module : nn.Module
        The layer.
    stack : str or None
        The stack that it is in.
    """

    layer: int
    module: nn.Module
    stack: str | None


@dataclass(eq=False)
class _Rows:
    """The valid positions of a stack, on one device."""

    shape: tuple[int, int]
    index: Tensor | None  # None: all of them
    mask: Tensor  # [B * S] bool


@dataclass(eq=False)
class _LayerPart:
    """One layer's share of a block."""

    ids: Tensor
    weights: Tensor
    logits: Tensor | None
    fingerprint: Tensor | None


class Collector:
    """Collects what routers give, batch by batch.

    Parameters
    ----------
    routers : sequence of Router
        Which routers, in the order of the dump's layers.
    taps : sequence of HiddenTap
        Which hidden states.
    kind : str or None
        The kind of fingerprint to add up on the way.
    keep_logits : bool
        True keeps the logits of every token.

    Attributes
    ----------
    sizes : dict
        Experts and slots of the routers that have run, by their number.
    """

    def __init__(
        self, routers: Sequence[Router], taps: Sequence[HiddenTap] = (), *, kind: str | None, keep_logits: bool
    ) -> None:
        self._routers = routers
        self._taps = taps
        self._kind = kind
        self._keep_logits = keep_logits
        self._handles: list[RemovableHandle] = []
        self.sizes: dict[int, tuple[int | None, int]] = {}

    def __enter__(self) -> Collector:
        try:
            for i, router in enumerate(self._routers):
                self._handles += router.attach(partial(self._emit, i))
            for j, tap in enumerate(self._taps):
                self._handles.append(tap.module.register_forward_hook(partial(self._emit_hidden, j)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin(self, batch: Batch | None) -> None:
        """Get ready for the calls of one batch.

        Parameters
        ----------
        batch : Batch or None
            The batch, if its rows are known already: then each router is called once, and what it gives is cut down
            at once. None while generating: then rows come step by step, and `finish` is given the batch.
        """
        self._batch = batch
        self._rows: dict[tuple[str | None, torch.device], _Rows] = {}
        self._readings: list[list[Reading]] = [[] for _ in self._routers]
        self._states: list[list[Tensor]] = [[] for _ in self._taps]
        self._parts: list[_LayerPart | None] = [None] * len(self._routers)

    def finish(self, batch: Batch) -> list[Block]:
        """Give what the routers said about a batch.

        Parameters
        ----------
        batch : Batch
            The batch; its valid positions are those that were fed.

        Returns
        -------
        list of Block

        Raises
        ------
        CaptureError
            A router that must have been called was not, or gave rows for other positions than the batch has.
        """
        self._batch = batch
        for i, readings in enumerate(self._readings):
            if readings and self._parts[i] is not None:
                raise CaptureError(f"{self._routers[i].path}: the router was called more than once in one forward")
            if readings:
                self._parts[i] = self._reduce(i, readings)
        self._check_all_called(batch)
        groups: dict[tuple[str | None, torch.device], list[int]] = {}
        for i, part in enumerate(self._parts):
            if part is not None:
                groups.setdefault((self._stack(i), part.ids.device), []).append(i)
        blocks = [self._block(stack, layers) for (stack, _), layers in groups.items()]
        blocks += self._hidden_blocks()
        self._readings, self._states, self._parts = [], [], []
        return blocks

    def _emit(self, i: int, reading: Reading) -> None:
        # A compiled model traces this: it must be no more than an append.
        if torch.compiler.is_compiling() or self._batch is None:
            self._readings[i].append(reading)
        elif self._parts[i] is not None:
            raise CaptureError(f"{self._routers[i].path}: the router was called more than once in one forward")
        else:
            self._parts[i] = self._reduce(i, [reading])

    def _emit_hidden(self, j: int, module: nn.Module, args: object, output: object) -> None:
        state = output[0] if isinstance(output, tuple | list) else output
        if isinstance(state, Tensor):
            self._states[j].append(state.detach())

    def _stack(self, i: int) -> str | None:
        return self._routers[i].stack

    def _valid(self, stack: str | None, device: torch.device) -> _Rows:
        """Give the valid positions of a stack on a device, sent there once a batch."""
        key = (stack, device)
        if key not in self._rows:
            assert self._batch is not None  # noqa: S101 (begin or finish has set it)
            mask = self._batch.valid[stack]
            flat = mask.reshape(-1)
            index = None if bool(flat.all()) else flat.nonzero()[:, 0]
            on_device = None if index is None else _send(index, device)
            self._rows[key] = _Rows((mask.shape[0], mask.shape[1]), on_device, _send(flat, device))
        return self._rows[key]

    def _reduce(self, i: int, readings: Sequence[Reading]) -> _LayerPart:
        """Cut what a router gave in one or more calls to the valid rows, and add up its fingerprints."""
        router = self._routers[i]
        rows = self._valid(router.stack, readings[0].ids.device)
        n_samples, n_positions = rows.shape
        ids = self._lay_out(i, [reading.ids for reading in readings], rows, fill=-1)
        weights = self._lay_out(i, [reading.weights for reading in readings], rows, fill=0)
        given = [reading.logits for reading in readings if reading.logits is not None]
        n_experts = given[0].shape[1] if given else router.n_experts
        self._check_size(i, n_experts, ids.shape[1])
        wants_logits = len(given) == len(readings) and (self._keep_logits or self._kind == "probs")
        logits = self._lay_out(i, given, rows, fill=0) if wants_logits else None
        fingerprint = None
        if self._kind is not None:
            if n_experts is None:
                raise CaptureError(f"{router.path}: has no logits and does not say how many experts it has")
            mass = _mass(self._kind, router, ids, weights, logits, n_experts)
            seen = rows.mask & (ids >= 0).any(dim=1)
            if self._kind == "weights":
                seen &= weights.float().sum(dim=1) != 0
            mass = torch.where(seen[:, None], mass, 0).view(n_samples, n_positions, n_experts)
            n_seen = seen.view(n_samples, n_positions, 1).sum(dim=1)
            if self._kind == "counts":
                n_seen = mass.sum(dim=(1, 2))[:, None]
            fingerprint = mass.sum(dim=1) / n_seen.clamp(min=1)
        ids = ids.to(torch.int16)
        if rows.index is not None:
            ids, weights = ids[rows.index], weights[rows.index]
            logits = None if logits is None else logits[rows.index]
        return _LayerPart(ids, weights, logits if self._keep_logits else None, fingerprint)

    def _check_size(self, i: int, n_experts: int | None, top_k: int) -> None:
        """Remember a router's size, and refuse one that changes."""
        before = self.sizes.setdefault(i, (n_experts, top_k))
        if before != (n_experts, top_k):
            path = self._routers[i].path
            raise CaptureError(f"{path}: gave {n_experts} experts and {top_k} slots, and {before} earlier")

    def _lay_out(self, i: int, pieces: Sequence[Tensor], rows: _Rows, *, fill: int) -> Tensor:
        """Put the rows of all calls in order, one for every position of the batch."""
        router = self._routers[i]
        n_samples, n_positions = rows.shape
        n_rows = sum(piece.shape[0] for piece in pieces)
        covered = None if self._batch is None else router.covers(self._batch.inputs)
        if covered is not None:
            # New tokens are text; the router that saw them has one row more for each.
            n_new = n_positions - covered.shape[1]
            is_text = n_rows != int(covered.sum())
            covered = torch.cat([covered, torch.full((n_samples, n_new), is_text)], dim=1)
            where = _send(covered.reshape(-1).nonzero()[:, 0], pieces[0].device)
            _check_rows(router, n_rows, len(where), n_samples, n_positions)
            laid = pieces[0].new_full((n_samples * n_positions, pieces[0].shape[1]), fill)
            return laid.index_copy(0, where, torch.cat(list(pieces)))
        _check_rows(router, n_rows, n_samples * n_positions, n_samples, n_positions)
        if len(pieces) == 1:
            return pieces[0]
        steps = [piece.view(n_samples, -1, piece.shape[1]) for piece in pieces]
        return torch.cat(steps, dim=1).view(n_samples * n_positions, -1)

    def _block(self, stack: str | None, layers: Sequence[int]) -> Block:
        """Stack the layers of one device."""
        parts = [part for part in (self._parts[i] for i in layers) if part is not None]
        top_k = max(part.ids.shape[1] for part in parts)
        dtype = _widest([part.weights.dtype for part in parts])
        logits = None
        if self._keep_logits:
            given = [part.logits for part in parts if part.logits is not None]
            if len(given) < len(parts):
                path = next(self._routers[i].path for i, part in zip(layers, parts, strict=True) if part.logits is None)
                raise CaptureError(f"{path}: the router gives no logits; leave logits out")
            width = max(piece.shape[1] for piece in given)
            wide = _widest([piece.dtype for piece in given])
            logits = torch.stack([_widen(piece.to(wide), width, 0) for piece in given], dim=1)
        fingerprints = None
        if self._kind is not None:
            shares = [part.fingerprint for part in parts if part.fingerprint is not None]
            width = max(share.shape[1] for share in shares)
            fingerprints = torch.stack([_widen(share, width, 0) for share in shares], dim=1)
        return Block(
            stack,
            tuple(layers),
            torch.stack([_widen(part.ids, top_k, -1) for part in parts], dim=1),
            torch.stack([_widen(part.weights.to(dtype), top_k, 0) for part in parts], dim=1),
            logits,
            fingerprints,
        )

    def _hidden_blocks(self) -> list[Block]:
        blocks = []
        for j, (tap, states) in enumerate(zip(self._taps, self._states, strict=True)):
            if not states:
                raise CaptureError(f"hidden_states: layer {tap.layer} was not run")
            rows = self._valid(tap.stack, states[0].device)
            flat = torch.cat(states, dim=1).flatten(0, 1)
            if flat.shape[0] != rows.shape[0] * rows.shape[1]:
                raise CaptureError(f"hidden_states: layer {tap.layer} gave {flat.shape[0]:,} rows for {rows.shape}")
            flat = flat if rows.index is None else flat[rows.index]
            nothing = torch.empty(0, dtype=torch.int16)
            blocks.append(Block(tap.stack, (j,), nothing, nothing, hidden=flat[:, None]))
        return blocks

    def _check_all_called(self, batch: Batch) -> None:
        """Refuse a batch in which a router stayed silent that must have spoken."""
        for router, part in zip(self._routers, self._parts, strict=True):
            if part is not None or router.stack not in batch.valid:
                continue
            covered = router.covers(batch.inputs)
            if covered is not None and not bool(covered.any()):
                continue
            raise CaptureError(
                f"{router.path}: the router was not called; the model bypasses it (a quantised or fused block), or a "
                f"part of it was compiled before by itself: capture with the model as it was loaded"
            )


def _mass(kind: str, router: Router, ids: Tensor, weights: Tensor, logits: Tensor | None, n_experts: int) -> Tensor:
    """Give every row's distribution over the experts, float32 [rows, E]."""
    if kind == "probs":
        if logits is None:
            raise CaptureError(f"{router.path}: the router gives no full distribution; use kind='weights'")
        return full_probabilities(logits, router.scoring)
    filled = ids >= 0
    share = filled.float()
    if kind == "weights":
        share = torch.where(filled, weights.float(), 0)
        total = share.sum(dim=1, keepdim=True)
        share = share / torch.where(total == 0, 1, total)
    mass = share.new_zeros((ids.shape[0], n_experts))
    return mass.scatter_add_(1, ids.clamp(min=0).long(), share)


def _check_rows(router: Router, found: int, expected: int, n_samples: int, n_positions: int) -> None:
    if found != expected:
        raise CaptureError(
            f"{router.path}: the router gave {found:,} rows, expected {expected:,} for {n_samples} samples of "
            f"{n_positions:,} positions; a layer that feeds its router otherwise cannot be captured"
        )


def _widen(tensor: Tensor, width: int, fill: int) -> Tensor:
    missing = width - tensor.shape[-1]
    return tensor if missing == 0 else pad(tensor, (0, missing), value=fill)


def _widest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a small tensor to a device without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

"""From router calls to blocks of rows, on the device that the model runs on.

Nothing here waits for the device. A hook only keeps what it sees; when the batch is through, all layers are cut to
valid rows and summed up there at once, and leave in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from moefps.errors import CaptureError
from moefps.recording.adding import Laid, Rows, add_up, stack_layers

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
        self._needs_logits = keep_logits or kind == "probs"
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

    def begin(self) -> None:
        """Get ready for the calls of one batch."""
        self._rows: dict[tuple[str | None, torch.device], Rows] = {}
        self._readings: list[list[Reading]] = [[] for _ in self._routers]
        self._states: list[list[Tensor]] = [[] for _ in self._taps]

    def finish(self, batch: Batch) -> list[Block]:
        """Give what the routers said about a batch.

        Parameters
        ----------
        batch : Batch
            The batch that was run; its valid positions are those that were fed.

        Returns
        -------
        list of Block

        Raises
        ------
        CaptureError
            A router that must have been called was not, or gave rows for other positions than the batch has.
        """
        self._check_all_called(batch)
        groups: dict[tuple[str | None, torch.device], list[int]] = {}
        for i, readings in enumerate(self._readings):
            if readings:
                groups.setdefault((self._routers[i].stack, readings[0].ids.device), []).append(i)
        blocks = [self._block(batch, stack, device, layers) for (stack, device), layers in groups.items()]
        blocks += self._hidden_blocks(batch)
        self.begin()
        return blocks

    def _emit(self, i: int, reading: Reading) -> None:
        # All that a hook does: the work is done for all layers at once when the batch is through, in a few large steps
        # instead of many small ones. A compiled model traces this, too.
        logits = reading.logits
        if logits is not None and not self._needs_logits and not torch.compiler.is_compiling():
            # Only their number is needed.
            reading = replace(reading, logits=logits.new_empty((0, logits.shape[1])))
        self._readings[i].append(reading)

    def _emit_hidden(self, j: int, module: nn.Module, args: object, output: object) -> None:
        state = output[0] if isinstance(output, tuple | list) else output
        if isinstance(state, Tensor):
            self._states[j].append(state.detach())

    def _valid(self, batch: Batch, stack: str | None, device: torch.device) -> Rows:
        """Give the valid positions of a stack on a device, sent there once a batch."""
        key = (stack, device)
        if key not in self._rows:
            mask = batch.valid[stack]
            flat = mask.reshape(-1)
            index = None if bool(flat.all()) else _send(flat.nonzero()[:, 0], device)
            self._rows[key] = Rows((mask.shape[0], mask.shape[1]), index, _send(flat, device))
        return self._rows[key]

    def _block(self, batch: Batch, stack: str | None, device: torch.device, layers: Sequence[int]) -> Block:
        """Put the layers of one stack and device together."""
        rows = self._valid(batch, stack, device)
        laid = [self._lay_out(i, batch, rows) for i in layers]
        ids = stack_layers([layer.ids for layer in laid], fill=-1)
        weights = stack_layers([layer.weights for layer in laid], fill=0)
        fingerprints = None if self._kind is None else add_up(self._kind, laid, ids, weights, rows)
        logits = self._stacked_logits(laid) if self._keep_logits else None
        ids = ids.to(torch.int16)
        if rows.index is not None:
            ids, weights = ids[rows.index], weights[rows.index]
            logits = None if logits is None else logits[rows.index]
        return Block(stack, tuple(layers), ids, weights, logits, fingerprints)

    def _stacked_logits(self, laid: Sequence[Laid]) -> Tensor:
        given = [layer.logits for layer in laid if layer.logits is not None]
        if len(given) < len(laid):
            path = next(layer.router.path for layer in laid if layer.logits is None)
            raise CaptureError(f"{path}: the router gives no logits; leave logits out")
        return stack_layers(given, fill=0)

    def _check_size(self, i: int, n_experts: int | None, top_k: int) -> None:
        """Remember a router's size, and refuse one that changes."""
        before = self.sizes.setdefault(i, (n_experts, top_k))
        if before != (n_experts, top_k):
            path = self._routers[i].path
            raise CaptureError(f"{path}: gave {n_experts} experts and {top_k} slots, and {before} earlier")

    def _lay_out(self, i: int, batch: Batch, rows: Rows) -> Laid:
        """Put the rows of all calls of a router in order, one for every position of the batch."""
        router, readings = self._routers[i], self._readings[i]
        n_experts = router.n_experts if readings[0].logits is None else readings[0].logits.shape[1]
        self._check_size(i, n_experts, readings[0].ids.shape[1])
        where = _covered(router, sum(reading.ids.shape[0] for reading in readings), batch, rows)
        ids = _in_order([reading.ids for reading in readings], rows, where, fill=-1)
        weights = _in_order([reading.weights for reading in readings], rows, where, fill=0)
        given = [reading.logits for reading in readings if reading.logits is not None]
        logits = None
        if self._needs_logits and len(given) == len(readings):
            logits = _in_order(given, rows, where, fill=0)
        return Laid(router, n_experts, ids, weights, logits)

    def _hidden_blocks(self, batch: Batch) -> list[Block]:
        blocks = []
        for j, (tap, states) in enumerate(zip(self._taps, self._states, strict=True)):
            if not states:
                raise CaptureError(f"hidden_states: layer {tap.layer} was not run")
            rows = self._valid(batch, tap.stack, states[0].device)
            flat = torch.cat(states, dim=1).flatten(0, 1)
            if flat.shape[0] != rows.shape[0] * rows.shape[1]:
                raise CaptureError(f"hidden_states: layer {tap.layer} gave {flat.shape[0]:,} rows for {rows.shape}")
            flat = flat if rows.index is None else flat[rows.index]
            nothing = torch.empty(0, dtype=torch.int16)
            blocks.append(Block(tap.stack, (j,), nothing, nothing, hidden=flat[:, None]))
        return blocks

    def _check_all_called(self, batch: Batch) -> None:
        """Refuse a batch in which a router stayed silent that must have spoken."""
        for router, readings in zip(self._routers, self._readings, strict=True):
            if readings or router.stack not in batch.valid:
                continue
            covered = router.covers(batch.inputs)
            if covered is not None and not bool(covered.any()):
                continue
            raise CaptureError(
                f"{router.path}: the router was not called; the model bypasses it (a quantised or fused block), or a "
                f"part of it was compiled before by itself: capture with the model as it was loaded"
            )


def _covered(router: Router, n_rows: int, batch: Batch, rows: Rows) -> Tensor | None:
    """Tell which positions a router's rows are, None for all of them, and refuse rows that do not fit."""
    n_samples, n_positions = rows.shape
    covered = router.covers(batch.inputs)
    expected = n_samples * n_positions
    if covered is not None:
        # New tokens are text; the router that saw them has one row more for each.
        is_text = n_rows != int(covered.sum())
        new = torch.full((n_samples, n_positions - covered.shape[1]), is_text)
        covered = torch.cat([covered.cpu(), new], dim=1)
        expected = int(covered.sum())
    if n_rows != expected:
        raise CaptureError(
            f"{router.path}: the router gave {n_rows:,} rows, expected {expected:,} for {n_samples} samples of "
            f"{n_positions:,} positions; a layer that feeds its router otherwise, or twice, cannot be captured"
        )
    return None if covered is None else _send(covered.reshape(-1).nonzero()[:, 0], rows.mask.device)


def _in_order(pieces: Sequence[Tensor], rows: Rows, where: Tensor | None, *, fill: int) -> Tensor:
    """Lay the rows of one or more calls out over the positions of the batch."""
    n_samples, n_positions = rows.shape
    if where is not None:
        laid = pieces[0].new_full((n_samples * n_positions, pieces[0].shape[1]), fill)
        return laid.index_copy(0, where, torch.cat(list(pieces)))
    if len(pieces) == 1:
        return pieces[0]
    steps = [piece.view(n_samples, -1, piece.shape[1]) for piece in pieces]
    return torch.cat(steps, dim=1).view(n_samples * n_positions, -1)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a small tensor to a device without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

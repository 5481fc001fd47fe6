"""From the device to the disk, beside the model's work.

Blocks are copied to pinned memory on a stream of their own, and a thread that waits for the copies cuts them into
samples and writes them. The model goes on meanwhile; it is held up only where the disk is slower than the model.

A copy begins when the next batch has been launched. A forward asks the device small questions as it starts (is any
token masked?), and the answers would queue behind the copy, with the launches waiting for them.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from moefps.io.dump import DumpHeader, DumpWriter
    from moefps.recording.batching import Batch
    from moefps.recording.collecting import Block

__all__ = ["SampleRows", "Transfer"]

_WAITING_BYTES = 1 << 30
"""What may wait to be written: a disk that syncs stands still for a second now and then, the model must not."""

# The tensors of a block, and the arrays that they go into.
_STORED_AS = {
    "ids": "expert_ids",
    "weights": "expert_weights",
    "logits": "router_logits",
    "fingerprints": "fingerprints",
    "hidden": "hidden_states",
}
_TORCH_DTYPES = {
    np.dtype(np.int16): torch.int16,
    np.dtype(np.float16): torch.float16,
    np.dtype(np.float32): torch.float32,
}


@dataclass(frozen=True, eq=False)
class SampleRows:
    """What is known of the rows of one sample beside their routing.

    Attributes
    ----------
    token_ids : ndarray of shape [n]
        Token ids in the order of the rows; -1 for a patch.
    positions : ndarray of shape [n]
        Where each stood in its sequence, from 0.
    labels : mapping
        Further columns of the tokens.
    """

    token_ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    labels: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class _Held:
    """A batch that is still on the devices, and when the devices will be through with it."""

    batch: Batch
    blocks: Sequence[Block]
    rows: Sequence[SampleRows]
    ready: dict[torch.device, torch.cuda.Event]


@dataclass(frozen=True, eq=False)
class _Job:
    batch: Batch
    blocks: list[Block]
    copied: list[torch.cuda.Event]
    rows: Sequence[SampleRows]

    @property
    def n_bytes(self) -> int:
        """What the tensors take."""
        tensors = (getattr(block, name) for block in self.blocks for name in _STORED_AS)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class Transfer:
    """Takes blocks away from the device and writes them.

    Parameters
    ----------
    writer : DumpWriter or None
        Where to; None takes everything and writes nothing (the other processes of a tensor-parallel run).
    header : DumpHeader
        What the dump holds.
    on_written : callable
        Called with the number of rows, from the thread that writes.
    """

    def __init__(self, writer: DumpWriter | None, header: DumpHeader, on_written: Callable[[int], None]) -> None:
        self._writer = writer
        self._header = header
        self._on_written = on_written
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._held: _Held | None = None
        self._jobs: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._is_ended = False
        self._turn = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="moefps-writer", daemon=True)
        self._thread.start()

    def send(self, batch: Batch, blocks: Sequence[Block], rows: Sequence[SampleRows]) -> None:
        """Take over the blocks of a batch; returns before they are copied."""
        self._raise()
        if self._writer is None:
            return
        self._pass_on()
        devices = {_device(block) for block in blocks}
        ready = {device: _record_event(device) for device in devices if device.type == "cuda"}
        self._held = _Held(batch, blocks, rows, ready)
        if not ready:
            self._pass_on()

    def _pass_on(self) -> None:
        """Start the copies of the batch that is held, and queue it for the thread."""
        held, self._held = self._held, None
        if held is None:
            return
        copied: list[torch.cuda.Event] = []
        on_host = [self._to_host(block, held.ready, copied) for block in held.blocks]
        job = _Job(held.batch, on_host, copied, held.rows)
        with self._turn:
            while self._jobs and self._waiting_bytes + job.n_bytes > _WAITING_BYTES:
                # In short steps, so that Ctrl-C and an error of the thread come through.
                self._turn.wait(0.1)
                self._raise()
            self._jobs.append(job)
            self._waiting_bytes += job.n_bytes
            self._turn.notify_all()

    def close(self, *, discard: bool = False) -> None:
        """Write what is waiting, and end the thread.

        Parameters
        ----------
        discard : bool
            True drops what is waiting, as after an error.
        """
        try:
            if discard:
                self._held = None
            self._pass_on()
        finally:
            with self._turn:
                if discard:
                    self._jobs.clear()
                self._is_ended = True
                self._turn.notify_all()
        while self._thread.is_alive():
            self._thread.join(0.1)
        if not discard:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _to_host(
        self, block: Block, ready: Mapping[torch.device, torch.cuda.Event], copied: list[torch.cuda.Event]
    ) -> Block:
        """Start copying a block to the host, in the dtypes that are stored; the device widens what must be."""
        device = _device(block)
        given = {name: getattr(block, name) for name in _STORED_AS}
        tensors = {name: tensor for name, tensor in given.items() if tensor is not None}
        hosts: dict[str, Any] = {}
        if device.type != "cuda":
            hosts = {name: self._widened(name, tensor).cpu() for name, tensor in tensors.items()}
            return replace(block, **hosts)
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream = self._streams[device]
        stream.wait_event(ready[device])
        with torch.cuda.stream(stream):
            for name, tensor in tensors.items():
                wide = self._widened(name, tensor)
                host = torch.empty(wide.shape, dtype=wide.dtype, pin_memory=True)
                hosts[name] = host.copy_(wide, non_blocking=True)
                if tensor.is_cuda:
                    # The allocator must not hand the memory out again before this stream is done with it.
                    tensor.record_stream(stream)
            copied.append(stream.record_event())
        return replace(block, **hosts)

    def _widened(self, name: str, tensor: Tensor) -> Tensor:
        """Give a tensor in the dtype of its array, which holds every value of it: numpy has no bfloat16."""
        dtype = self._header.arrays.get(_STORED_AS[name])
        return tensor if dtype is None else tensor.to(_TORCH_DTYPES[dtype])

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                for event in job.copied:
                    event.synchronize()
                self._write(job)
                with self._turn:
                    self._waiting_bytes -= job.n_bytes
                    self._turn.notify_all()
        # Whatever goes wrong belongs to the thread that waits for the result.
        except BaseException as error:  # noqa: BLE001
            with self._turn:
                self._error = error
                self._turn.notify_all()

    def _next(self) -> _Job | None:
        """Wait for a batch to write; None when there will be no more."""
        with self._turn:
            while not self._jobs and not self._is_ended:
                self._turn.wait()
            return self._jobs.popleft() if self._jobs else None

    def _write(self, job: _Job) -> None:
        assert self._writer is not None  # noqa: S101 (send queues nothing without)
        arrays = _BatchArrays(job, self._header)
        for b, sample in enumerate(job.batch.samples):
            if self._writer.done[sample]:
                # The run that this one goes on with was stopped in the middle of the batch.
                continue
            rows = job.rows[b]
            self._writer.write(
                sample,
                **arrays.sample(b),
                token_ids=rows.token_ids,
                positions=rows.positions,
                labels=rows.labels,
            )
            self._on_written(len(rows.token_ids))


class _BatchArrays:
    """The blocks of a batch as numpy arrays, and the part of each sample in them."""

    def __init__(self, job: _Job, header: DumpHeader) -> None:
        self._header = header
        self._n_layers = len(header.layers)
        self._top_k = max((layer.top_k for layer in header.layers), default=0)
        self._n_experts = max((layer.n_experts for layer in header.layers), default=0)
        self._blocks = [_numpy_block(block) for block in job.blocks]
        # Where the rows of each sample begin, in every stack.
        counts = {stack: mask.sum(dim=1).numpy() for stack, mask in job.batch.valid.items()}
        self._counts = counts
        self._starts = {stack: np.concatenate([[0], np.cumsum(count)]) for stack, count in counts.items()}

    def sample(self, b: int) -> dict[str, Any]:
        """Give the arrays of one sample, all stacks one after another."""
        if len(self._blocks) == 1 and len(self._starts) == 1:
            whole = self._blocks[0]
            if len(whole["layers"]) == self._n_layers and whole["hidden"] is None:
                return self._direct(whole, slice(*self._starts[whole["stack"]][b : b + 2]), b)
        return self._assembled(b)

    def _direct(self, block: dict[str, Any], rows: slice, b: int) -> dict[str, Any]:
        """Cut a sample out of the one block that has all layers, without a copy."""
        return {
            "expert_ids": block["ids"][rows],
            "expert_weights": block["weights"][rows],
            "router_logits": None if block["logits"] is None else block["logits"][rows],
            "fingerprint": None if block["fingerprints"] is None else block["fingerprints"][b],
            "hidden_states": None,
        }

    def _assembled(self, b: int) -> dict[str, Any]:
        """Put a sample together from several devices, stacks or kinds of layer."""
        arrays = self._header.arrays
        n_rows = sum(int(count[b]) for count in self._counts.values())
        shape = (n_rows, self._n_layers)
        made: dict[str, Any] = {
            "expert_ids": np.full((*shape, self._top_k), -1, dtype=np.int16),
            "expert_weights": np.zeros((*shape, self._top_k), dtype=arrays["expert_weights"]),
            "router_logits": None,
            "fingerprint": None,
            "hidden_states": None,
        }
        if "router_logits" in arrays:
            made["router_logits"] = np.zeros((*shape, self._n_experts), dtype=arrays["router_logits"])
        if "fingerprints" in arrays:
            made["fingerprint"] = np.zeros((self._n_layers, self._n_experts), dtype=np.float32)
        if "hidden_states" in arrays:
            size = (n_rows, len(self._header.hidden_layers or ()), self._header.hidden_size or 0)
            made["hidden_states"] = np.zeros(size, dtype=arrays["hidden_states"])
        first_row = dict(zip(self._counts, np.cumsum([0] + [int(c[b]) for c in self._counts.values()]), strict=False))
        for block in self._blocks:
            stack = block["stack"]
            source = slice(*self._starts[stack][b : b + 2])
            target = slice(int(first_row[stack]), int(first_row[stack] + self._counts[stack][b]))
            self._place(made, block, source, target, b)
        return made

    @staticmethod
    def _place(made: dict[str, Any], block: dict[str, Any], source: slice, target: slice, b: int) -> None:
        layers = list(block["layers"])
        if block["hidden"] is not None:
            made["hidden_states"][target, layers] = block["hidden"][source]
            return
        pairs = (("expert_ids", "ids"), ("expert_weights", "weights"), ("router_logits", "logits"))
        for name, key in pairs:
            array, piece = made[name], block[key]
            if array is not None and piece is not None:
                array[target, layers, : piece.shape[2]] = piece[source]
        shares = block["fingerprints"]
        if made["fingerprint"] is not None and shares is not None:
            made["fingerprint"][layers, : shares.shape[2]] = shares[b]


def _device(block: Block) -> torch.device:
    return block.ids.device if block.hidden is None else block.hidden.device


def _record_event(device: torch.device) -> torch.cuda.Event:
    """Mark the work that the device has been given so far."""
    marked = torch.cuda.Event()  # type: ignore[no-untyped-call]
    marked.record(torch.cuda.current_stream(device))
    return marked


def _numpy_block(block: Block) -> dict[str, Any]:
    tensors = {name: getattr(block, name) for name in _STORED_AS}
    arrays = {name: None if tensor is None else tensor.numpy() for name, tensor in tensors.items()}
    return {"stack": block.stack, "layers": block.layers, **arrays}

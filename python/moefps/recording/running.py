"""Running the batches of a plan, and handing what the routers gave to the writer."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from moefps._progress import progress_callback
from moefps.errors import CaptureError, CaptureWarning
from moefps.io.dump import DumpHeader, DumpWriter, open_dump
from moefps.recording.batching import DECODER, VISION, Batch, pad_batch
from moefps.recording.collecting import Block, Collector
from moefps.recording.describing import dump_header, router_matrix
from moefps.recording.generating import Generated, generate_batch
from moefps.recording.planning import Plan
from moefps.recording.state import left_as_found, plain_module
from moefps.recording.transfer import SampleRows, Transfer

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

    from moefps._typing import Progress, ProgressCallback
    from moefps.io.dump import Dump

__all__ = ["run_plan"]

NO_TOKEN = -1


def run_plan(
    plan: Plan, output: Path, table: pl.DataFrame | None, *, resume: bool, overwrite: bool, progress: Progress
) -> Dump:
    """Run all batches and write the dump; the model is left as it was found, also after an error.

    Parameters
    ----------
    plan : Plan
        What to run.
    output : Path
        The dump's folder.
    table : polars.DataFrame or None
        Columns of the samples.
    resume, overwrite, progress
        As in `capture`.
    """
    if not plan.routers:
        warnings.warn("the model has no MoE layer: the dump has tokens and no routing", CaptureWarning, stacklevel=3)
    is_shared = _is_shared(plan.model)
    is_writer = not is_shared or torch.distributed.get_rank() == 0
    with ExitStack() as stack:
        stack.enter_context(left_as_found(plan.model))
        stack.enter_context(torch.no_grad())
        report = stack.enter_context(progress_callback(progress if is_writer else False, "capturing"))
        collector = stack.enter_context(
            Collector(plan.routers, plan.taps, kind=plan.kind, keep_logits=plan.keep_logits)
        )
        _run_batches(plan, collector, output, table, report, is_writer=is_writer, resume=resume, overwrite=overwrite)
    if is_shared:
        torch.distributed.barrier()
    return open_dump(output)


def _run_batches(
    plan: Plan,
    collector: Collector,
    output: Path,
    table: pl.DataFrame | None,
    report: ProgressCallback | None,
    *,
    is_writer: bool,
    resume: bool,
    overwrite: bool,
) -> None:
    """Run the batches; the writer is opened after the first, which shows what the routers give."""
    total = sum(sample.n_rows + max(0, plan.n_new - 1) for sample in plan.encoded)
    written = _Counter(total, report)
    writer: DumpWriter | None = None
    transfer: Transfer | None = None
    is_whole = False
    try:
        for number, samples in enumerate(plan.batches):
            if writer is not None and bool(writer.done[samples].all()):
                continue
            batch, blocks, rows = _run_batch(plan, collector, number, samples)
            if transfer is None:
                header = dump_header(plan, collector, blocks)
                if is_writer:
                    writer = _open_writer(plan, output, header, table, resume=resume, overwrite=overwrite)
                    written.add(_rows_done(plan, writer))
                transfer = Transfer(writer, header, written.add)
            if writer is None or not bool(writer.done[samples].all()):
                transfer.send(batch, blocks, rows)
            written.show()
        if transfer is not None:
            transfer.close()
        is_whole = True
    finally:
        if transfer is not None and not is_whole:
            transfer.close(discard=True)
        if writer is not None:
            if is_whole:
                writer.finish()
            else:
                writer.close()
    written.end()


class _Counter:
    """Rows written so far, counted by one thread and shown by another."""

    def __init__(self, total: int, report: ProgressCallback | None) -> None:
        self._done = 0
        self._total = total
        self._report = report

    def add(self, n_rows: int) -> None:
        self._done += n_rows

    def show(self) -> None:
        if self._report is not None:
            self._report(min(self._done, self._total), self._total)

    def end(self) -> None:
        # Samples that stopped early have fewer rows than they might have had.
        self._done = self._total
        self.show()


def _rows_done(plan: Plan, writer: DumpWriter) -> int:
    return sum(sample.n_rows for sample, done in zip(plan.encoded, writer.done, strict=True) if done)


def _run_batch(
    plan: Plan, collector: Collector, number: int, samples: Sequence[int]
) -> tuple[Batch, list[Block], list[SampleRows]]:
    batch = pad_batch(samples, plan.encoded, pad_id=plan.pad_id, encoder_stack=plan.encoder_stack, left=plan.n_new > 0)
    inputs = _on_device(batch.inputs, plain_module(plan.model))
    collector.begin()
    try:
        if plan.n_new:
            with _seeded(plan.seed, number):
                generated = generate_batch(
                    plan.model, inputs, batch, n_new=plan.n_new, pad_id=plan.pad_id, arguments=plan.sampling
                )
            batch = generated.batch
            rows = [_generated_rows(plan, generated, b) for b in range(len(samples))]
        else:
            plan.model(**inputs, **_forward_arguments(plain_module(plan.model), inputs))
            rows = [_forward_rows(plan, batch, sample) for sample in samples]
    except torch.cuda.OutOfMemoryError as error:
        positions = batch.inputs["input_ids"].shape
        raise CaptureError(
            f"out of GPU memory with {positions[0]} samples of {positions[1]:,} positions in a batch; "
            f"use fewer batch_tokens (--batch-tokens)"
        ) from error
    return batch, collector.finish(batch), rows


def _on_device(inputs: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Send a batch where the model begins; pixels and sounds get the model's dtype, as processors do it."""
    device = getattr(model, "device", torch.device("cpu"))
    device = torch.device("cpu") if device.type == "meta" else device
    placed: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            placed[name] = value.to(device, dtype=model.dtype) if value.is_floating_point() else value.to(device)
        else:
            placed[name] = value
    return placed


def _forward_arguments(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a capture has no use for: the cache, and the vocabulary's logits of all tokens but one."""
    accepted = inspect.signature(model.forward).parameters
    spare = {"use_cache": False, "logits_to_keep": 1}
    return {name: value for name, value in spare.items() if name in accepted and name not in inputs}


def _forward_rows(plan: Plan, batch: Batch, number: int) -> SampleRows:
    """Say which tokens the rows of a sample are."""
    sample = plan.encoded[number]
    if sample.mask is not None:
        places = np.flatnonzero(sample.mask.numpy())
        labels = {name: column[places] for name, column in sample.labels.items()}
        return SampleRows(sample.input_ids.numpy()[places], places, labels)
    pieces = [sample.input_ids.numpy()]
    if sample.decoder_ids is not None:
        pieces.append(sample.decoder_ids.numpy())
    if VISION in batch.valid:
        pieces.append(np.full(sample.n_patches, NO_TOKEN, dtype=np.int64))
    return _rows(plan, pieces, {})


def _generated_rows(plan: Plan, generated: Generated, b: int) -> SampleRows:
    """Say the same of a sample that was generated for: which tokens are new, and which came after each."""
    batch = generated.batch
    sample = plan.encoded[batch.samples[b]]
    is_pair = sample.decoder_ids is not None
    fed = generated.fed_ids[b][batch.valid[DECODER if is_pair else plan.encoder_stack][b]].numpy()
    n_prompt = len(fed) - len(generated.new_ids[b]) + 1
    pieces = [fed]
    is_new = [np.arange(len(fed)) >= n_prompt]
    following = [np.append(fed[1:], generated.new_ids[b][-1].numpy())]
    others = [sample.input_ids.numpy()] if is_pair else []
    if VISION in batch.valid:
        others.append(np.full(sample.n_patches, NO_TOKEN, dtype=np.int64))
    for other in others:
        # The encoder comes before the stack that generates, patches after it.
        at = 0 if is_pair else len(pieces)
        pieces.insert(at, other)
        is_new.insert(at, np.zeros(len(other), dtype=np.bool_))
        following.insert(at, np.full(len(other), NO_TOKEN, dtype=np.int64))
    return _rows(
        plan, pieces, {"generated": np.concatenate(is_new), "next_token_id": np.concatenate(following).astype(np.int32)}
    )


def _rows(plan: Plan, pieces: Sequence[npt.NDArray[np.int64]], labels: dict[str, npt.NDArray[Any]]) -> SampleRows:
    """Put the stacks of a sample one after another."""
    lengths = [len(piece) for piece in pieces]
    if plan.stacks:
        labels["stack"] = np.repeat(np.arange(len(pieces)), lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    return SampleRows(np.concatenate(pieces), positions, labels)


@contextmanager
def _seeded(seed: int | None, number: int) -> Iterator[None]:
    """Give every batch random numbers of its own, so that a resumed capture draws the same."""
    if seed is None:
        yield
        return
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed + number)
        yield


def _is_shared(model: Any) -> bool:
    """Tell whether several processes run one model together; then all capture, and the first one writes."""
    inner = plain_module(model)
    return any((getattr(inner, name, None) or 1) > 1 for name in ("tp_size", "fsdp_size"))


def _open_writer(
    plan: Plan, output: Path, header: DumpHeader, table: pl.DataFrame | None, *, resume: bool, overwrite: bool
) -> DumpWriter:
    """Open the dump, with room for all that can come."""
    n_more = max(0, plan.n_new - 1)
    capacities = np.array([sample.n_rows + n_more for sample in plan.encoded], dtype=np.int64)
    writer = DumpWriter(output, header, capacities=capacities, samples=table, resume=resume, overwrite=overwrite)
    if plan.keep_vectors:
        writer.write_router_vectors(router_matrix(plan))
    return writer

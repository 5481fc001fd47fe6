"""Dumps of what people have: expert ids with gate weights, or router logits, from other tools' files."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import polars as pl

from moefps._progress import progress_callback
from moefps.errors import ArgumentError, DataError, FileError, MoefpsError, ShapeError
from moefps.io.atomic import file_error
from moefps.io.dump import Dump, LayerInfo, write_dump
from moefps.io.dump.folders import destination
from moefps.io.files import read_text
from moefps.io.npy import open_npy
from moefps.io.texts import RESERVED_COLUMNS
from moefps.io.trace_arrays import Stages, derived_arrays, narrowing_notes, pieces
from moefps.io.trace_sources import Source, check_offsets, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from moefps._typing import IndexArray, PathLike, Progress

__all__ = ["TraceScoring", "convert_trace"]

TraceScoring: TypeAlias = Literal["softmax", "sigmoid", "softmax_topk", "sqrt_softplus", "probabilities"]
SCORINGS: tuple[str, ...] = get_args(TraceScoring)

_MOST_EXPERTS = 1 << 15


def convert_trace(
    src: PathLike,
    output: PathLike,
    *,
    offsets: PathLike | Sequence[int] | IndexArray | None = None,
    top_k: int | None = None,
    scoring: TraceScoring | None = None,
    n_experts: int | None = None,
    first_layer: int | None = None,
    samples: pl.DataFrame | None = None,
    overwrite: bool = False,
    progress: Progress = False,
) -> Dump:
    """Make a dump of another tool's trace.

    Large arrays are mapped and go through in pieces; nothing is read whole.

    Parameters
    ----------
    src : path
        A .npz with expert ids [T, L, k] (as ``expert_ids``, ``ids``, ``topk_ids``, …), perhaps gate weights [T, L, k]
        (``weights``, ``gate_weights``, …), router logits [T, L, E] (``router_logits``, ``logits``), ``offsets`` [N + 1]
        or ``lengths`` [N], ``token_ids`` and ``positions`` [T]; every other array [N] becomes a column of the samples,
        every other [T] a column of the tokens. Or a .npz of router logits [T, E] for each layer, under its number
        (``0``, ``layer_3``, ``model.layers.3.mlp.gate``). Or a .npy of router logits [T, L, E] or expert ids [T, L, k].
    output : path
        The folder of the dump.
    offsets : path or sequence of int, optional
        Where the samples begin, [N + 1] from 0 to T, or their lengths [N]; a .npy or .txt, or the numbers. Without
        any, all tokens are one sample.
    top_k : int, optional
        Experts that a token chooses; needed where there are only router logits.
    scoring : str, optional
        How the router turns logits into weights: ``softmax``, ``sigmoid``, ``softmax_topk``, ``sqrt_softplus`` or
        ``probabilities`` (the file holds those already). For router logits alone, ``softmax`` when not given.
    n_experts : int, optional
        Experts of a layer, for ids; the largest id + 1 when not given.
    first_layer : int, optional
        The model's own number of the first layer, where the file does not say it; 0 when not given.
    samples : polars.DataFrame, optional
        Further columns, a row a sample.
    overwrite : bool
        True replaces a dump that exists.
    progress : bool or callable
        True shows a bar; a callable takes ``(done, total)`` tokens.

    Returns
    -------
    Dump
        Its manifest says under ``converted`` from what it was made and what was taken for granted. From logits alone,
        ids are the `top_k` largest (ties go to the lowest id) and weights the chosen experts' share of the full
        distribution, over the chosen ones alone for ``softmax_topk``; the manifest then says ``"derived": true``.

    Raises
    ------
    FileError
        A file is missing or damaged, or the dump cannot be written.
    ArgumentError
        The file holds nothing that is known, or an argument does not fit it.
    ShapeError, DtypeError
        An array has the wrong shape or dtype.
    DataError
        A value is not accepted: an id out of range, a number that is not finite, offsets that do not add up.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> np.save(folder / "logits.npy", np.random.default_rng(0).normal(size=(10, 2, 8)).astype(np.float32))
    >>> dump = convert_trace(folder / "logits.npy", folder / "d.dump", top_k=2, offsets=[4, 6])
    >>> dump.n_samples, dump.n_tokens, dump.expert_ids.shape
    (2, 10, (10, 2, 2))
    """
    with _scratch_beside(output, overwrite=overwrite) as scratch, progress_callback(progress, "converting") as report:
        source = open_source(src, scratch)
        plan = _plan(source, offsets, top_k, scoring, n_experts, first_layer)
        columns, tokens = _columns(source, plan.offsets, samples, plan.notes)
        plan.notes.extend(narrowing_notes(source))
        ids, weights, logits = source.ids, source.weights, source.logits.whole if source.logits is not None else None
        # Deriving, then writing each array.
        n_stages = 4 if ids is None else sum(array is not None for array in (ids, weights, logits))
        stages = Stages(report, n_stages) if report is not None else None
        if ids is None:
            ids, weights, logits = derived_arrays(source, plan.top_k, plan.scoring, scratch, stages)
        with _said_of_the_file(source.name):
            return write_dump(
                output,
                expert_ids=ids,
                expert_weights=weights,
                router_logits=logits,
                offsets=plan.offsets,
                samples=columns,
                tokens=tokens,
                layers=plan.layers,
                dtype="float32" if source.has_doubles else None,
                extra=plan.manifest_keys(source),
                overwrite=overwrite,
                progress=stages or False,
            )


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be made of a source."""

    offsets: IndexArray
    top_k: int
    scoring: str
    layers: tuple[LayerInfo, ...]
    is_derived: bool
    notes: list[str] = field(default_factory=list)

    def manifest_keys(self, source: Source) -> dict[str, Any]:
        converted = {"source": Path(source.name).name, "notes": self.notes}
        return {"converted": converted, "derived": True} if self.is_derived else {"converted": converted}


def _plan(
    source: Source,
    offsets: PathLike | Sequence[int] | IndexArray | None,
    top_k: int | None,
    scoring: str | None,
    n_experts: int | None,
    first_layer: int | None,
) -> _Plan:
    """Settle what the file does not say, and note it."""
    notes: list[str] = []
    found = _offsets(source, offsets, notes)
    if scoring is not None and scoring not in SCORINGS:
        raise ArgumentError(f"scoring: found {scoring!r}; accepted: {', '.join(SCORINGS)}")
    is_derived = source.ids is None
    if is_derived:
        widths = source.logits.widths if source.logits is not None else ()
        if top_k is None:
            raise ArgumentError(
                f"top_k: missing; {source.name} has router logits, which do not say how many experts a token chooses"
            )
        if not 1 <= top_k <= min(widths):
            raise ArgumentError(f"top_k: found {top_k}; accepted: 1 to {min(widths)}, the experts of a layer")
        if n_experts is not None:
            raise ArgumentError(f"n_experts: found {n_experts}; accepted: none, as router logits say it themselves")
        notes.append(
            f"ids are the {top_k} largest logits, weights the {scoring or 'softmax'} of the chosen: both derived, not "
            "what a router returned"
        )
        scoring = scoring or "softmax"
    else:
        widths, top_k = _id_widths(source, top_k, n_experts, notes)
    numbers = source.layer_numbers
    if numbers is not None and first_layer is not None:
        raise ArgumentError(f"first_layer: found {first_layer}; accepted: none, as {source.name} numbers its layers")
    if first_layer is not None and first_layer < 0:
        raise ArgumentError(f"first_layer: found {first_layer}; accepted: at least 0")
    numbers = numbers or tuple(range(first_layer or 0, (first_layer or 0) + source.n_layers))
    paths = source.layer_paths or tuple(f"layers.{number}" for number in numbers)
    scoring = scoring or "other"
    layers = tuple(
        LayerInfo(index=i, path=path, layer=number, n_experts=width, top_k=top_k, scoring=scoring)
        for i, (path, number, width) in enumerate(zip(paths, numbers, widths, strict=True))
    )
    return _Plan(found, top_k, scoring, layers, is_derived, notes)


def _id_widths(
    source: Source, top_k: int | None, n_experts: int | None, notes: list[str]
) -> tuple[tuple[int, ...], int]:
    """Find the number of experts of each layer, and k, where the file has ids."""
    ids = cast("npt.NDArray[Any]", source.ids)
    slots = int(ids.shape[2])
    if top_k not in {None, slots}:
        raise ArgumentError(f"top_k: found {top_k}, but {source.name} has ids of {slots} slots; leave it out")
    low, high = _range(ids)
    if low < -1:
        raise DataError(f"{source.name}: expert ids go down to {low}; accepted: -1 for an empty slot, and 0 or more")
    known = n_experts if n_experts is not None else source.n_experts
    if source.logits is not None:
        widths = source.logits.widths
        if known not in {None, widths[0]}:
            raise ArgumentError(f"n_experts: found {known}, but the router logits have {widths[0]}")
    elif known is not None:
        widths = (known,) * source.n_layers
    else:
        widths = (high + 1,) * source.n_layers
        notes.append(f"{high + 1} experts a layer: the largest id + 1")
    if not 1 <= widths[0] <= _MOST_EXPERTS:
        raise ArgumentError(f"n_experts: found {widths[0]:,}; accepted: 1 to {_MOST_EXPERTS:,}")
    if high >= widths[0]:
        raise DataError(f"{source.name}: expert ids go up to {high}; accepted: 0 to {widths[0] - 1}")
    return widths, slots


def _range(ids: npt.NDArray[Any]) -> tuple[int, int]:
    """Give the smallest and the largest id, reading piece by piece."""
    low, high = 0, -1
    for start, stop in pieces(ids.shape):
        piece = ids[start:stop]
        low, high = min(low, int(piece.min())), max(high, int(piece.max()))
    return low, high


def _offsets(source: Source, given: PathLike | Sequence[int] | IndexArray | None, notes: list[str]) -> IndexArray:
    """Find where samples begin."""
    if given is None:
        if source.offsets is not None:
            return source.offsets
        notes.append(f"no offsets: all {source.n_tokens:,} tokens are one sample")
        return np.array([0, source.n_tokens], dtype=np.int64)
    if source.offsets is not None:
        raise ArgumentError(f"offsets: given, but {source.name} holds offsets of its own; accepted: one of the two")
    if isinstance(given, str | os.PathLike):
        return check_offsets(_read_offsets(os.fspath(given)), source.n_tokens, os.fspath(given))
    numbers = np.asarray(given)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ShapeError(f"offsets: found shape {numbers.shape} of {numbers.dtype}; accepted: integers [N + 1] or [N]")
    return check_offsets(numbers, source.n_tokens, "offsets")


def _read_offsets(name: str) -> npt.NDArray[Any]:
    suffix = Path(name).suffix.lower()
    if suffix == ".npy":
        return open_npy(name, kinds="iu", ndim=(1,), layout="offsets [N + 1] or lengths [N]")
    if suffix != ".txt":
        raise FileError(f"{name}: offsets have the suffix {suffix or 'none'!r}; accepted: .npy, .txt")
    words = read_text(name, "a file of offsets").split()
    odd = next((word for word in words if not (word.isascii() and word.isdigit() and len(word) < 19)), None)
    if odd is not None or not words:
        raise DataError(
            f"{name}: found {'nothing' if odd is None else repr(odd[:40])}; accepted: integers, a line each"
        )
    return np.array([int(word) for word in words], dtype=np.int64)


def _columns(
    source: Source, offsets: IndexArray, given: pl.DataFrame | None, notes: list[str]
) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    """Sort the file's other arrays into columns of samples and of tokens; what fits neither is said."""
    n_samples, n_tokens = len(offsets) - 1, int(offsets[-1])
    samples: dict[str, Any] = {}
    tokens: dict[str, Any] = {name: np.array(array, dtype=np.int64) for name, array in source.token_columns.items()}
    for key, array in source.others.items():
        if array.ndim == 1 and len(array) == n_samples and key not in RESERVED_COLUMNS:
            samples[key] = np.array(array)
        elif array.ndim == 1 and len(array) == n_tokens and key not in {"sample", *tokens}:
            tokens[key] = np.array(array)
        else:
            notes.append(f"left out: {key} of shape {array.shape}, which is no column of samples or tokens")
    frame = pl.DataFrame(samples) if samples else None
    if given is not None:
        twice = next((name for name in given.columns if name in samples), None)
        if twice is not None:
            raise ArgumentError(f"samples: has a column {twice}, as {source.name} does; accepted: one of that name")
        if given.height != n_samples:
            raise ShapeError(f"samples: found {given.height:,} rows, expected one for each of {n_samples:,} samples")
        frame = given if frame is None else pl.concat([frame, given], how="horizontal")
    return frame, pl.DataFrame(tokens) if tokens else None


@contextmanager
def _said_of_the_file(name: str) -> Iterator[None]:
    """Let what is wrong with an array say in which file it is."""
    try:
        yield
    except MoefpsError as error:
        if not str(error).startswith(("expert_ids: ", "expert_weights: ", "router_logits: ")):
            raise
        raise type(error)(f"{name}: {error}") from error


@contextmanager
def _scratch_beside(output: PathLike, *, overwrite: bool) -> Iterator[Path]:
    """Make a folder for what is only needed on the way, on the disk of the output, and remove it."""
    place = destination(output, "output")
    name = os.fspath(output)
    if place.manifest is not None and not overwrite:
        raise FileError(f"{name}: exists already, pass --overwrite to replace it")
    beside = {"prefix": f".{place.path.name[:40]}.", "suffix": ".tmp", "dir": str(place.path.parent)}
    try:
        # Where files that are mapped cannot be removed, they go with the process.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True, **beside) as scratch:
            yield Path(scratch)
    except FileError:
        raise
    except OSError as error:
        raise file_error(name, error) from error

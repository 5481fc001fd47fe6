"""A dump from arrays that people have, in one call."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps._progress import progress_callback
from moefps.errors import ArgumentError, DataError, DtypeError, FileError, ShapeError
from moefps.io.atomic import file_error
from moefps.io.dump.checking import Rules, value_message
from moefps.io.dump.folders import MANIFEST, SAMPLES, TOKENS, destination, new_folder, replace_file
from moefps.io.dump.header import DumpHeader
from moefps.io.dump.layout import HALF, IDS, LAYOUTS, SINGLE
from moefps.io.dump.manifest import MOST_EXPERTS, LayerInfo
from moefps.io.dump.manifest_json import serialise_manifest
from moefps.io.dump.storage import BlockFile
from moefps.io.dump.user_tables import as_frame, sample_table, token_table
from moefps.io.tables import table_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import polars as pl

    from moefps._typing import IndexArray, PathLike, Progress, ProgressCallback
    from moefps.io.dump.reading import Dump

__all__ = ["write_dump"]

_CHUNK_ENTRIES = 1 << 21


def write_dump(
    path: PathLike,
    *,
    expert_ids: npt.ArrayLike,
    expert_weights: npt.ArrayLike | None = None,
    router_logits: npt.ArrayLike | None = None,
    offsets: npt.ArrayLike,
    n_experts: int | Sequence[int] | None = None,
    samples: pl.DataFrame | Mapping[str, Any] | None = None,
    tokens: pl.DataFrame | Mapping[str, Any] | None = None,
    layers: Sequence[LayerInfo] | None = None,
    scoring: str | None = None,
    signed_weights: bool | None = None,
    fingerprints: npt.ArrayLike | None = None,
    fingerprint_kind: str | None = None,
    hidden_states: npt.ArrayLike | None = None,
    hidden_layers: Sequence[int] | None = None,
    router_vectors: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike | None = None,
    model: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = False,
) -> Dump:
    """Write a dump from arrays or memory maps, in pieces, and open it.

    The dump appears when it is whole; any error leaves nothing.

    Parameters
    ----------
    path : path
        The dump's folder, which is made.
    expert_ids : array_like of int [T, L, k]
        Chosen experts of all tokens, sample after sample, -1 for an empty slot. Any integer dtype; kept as int16, in
        which every id must fit.
    expert_weights : array_like of float [T, L, k], optional
        Weights as the router returned them.
    router_logits : array_like of float [T, L, E], optional
        What the routers computed before any choice.
    offsets : array_like of int [N + 1]
        Sample i has the tokens ``offsets[i]:offsets[i + 1]``; from 0 to T.
    n_experts : int or sequence of int
        Experts that each layer can choose; may be left out where `layers` says so.
    samples : polars.DataFrame or mapping, optional
        The samples' own columns, N rows.
    tokens : polars.DataFrame or mapping, optional
        Columns of the tokens, T rows, such as ``token_id``; ``sample`` and ``position`` are added where missing.
    layers : sequence of LayerInfo, optional
        What is known of each layer; when not given they are named ``layers.0``, ``layers.1``, …
    scoring : str, optional
        How the routers turn logits into weights: softmax, sigmoid, softmax_topk, sqrt_softplus, probabilities, hash,
        or other, which is the default.
    signed_weights : bool, optional
        True where weights may be negative.
    fingerprints : array_like of float32 [N, L, E], optional
        Fingerprints that were computed already.
    fingerprint_kind : {"probs", "weights", "counts"}, optional
        What they are; needed with them.
    hidden_states : array_like of float [T, L', d], optional
        Hidden states.
    hidden_layers : sequence of int, optional
        Their layers, L' numbers; needed with them.
    router_vectors : array_like of float [L, E, d], optional
        The routers' own weight rows.
    dtype : {"float16", "float32"}, optional
        What weights, logits, hidden states and vectors are converted to. When not given they keep theirs, and float64
        is refused.
    model : mapping, optional
        What is known of the model, as JSON.
    extra : mapping, optional
        Further keys of the manifest, as JSON.
    overwrite : bool
        True replaces a dump that is there, and nothing else.
    progress : bool or callable
        True shows a bar; a callable gets ``(done, total)`` in tokens, for each array anew.

    Returns
    -------
    Dump

    Raises
    ------
    DataError
        An id is out of range, a weight is NaN, infinite or negative without `signed_weights`, offsets do not add up,
        or a column of `samples` or `tokens` disagrees with them.
    ShapeError, DtypeError, ArgumentError
        An argument has the wrong shape, dtype or value.
    FileError
        There is something already, or the disk is full or not writable.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> ids = np.array([[[0, 2]], [[1, 2]], [[2, 0]]], dtype=np.uint8)
    >>> dump = write_dump(path, expert_ids=ids, offsets=[0, 2, 3], n_experts=3, samples={"task": ["law", "intent"]})
    >>> dump.samples["task"].to_list(), dump.fingerprints("counts").shape
    (['law', 'intent'], (2, 1, 3))
    """
    ids = _take("expert_ids", expert_ids, "iu")
    starts = _check_offsets(offsets, len(ids))
    infos = _check_layers(layers, n_experts, ids.shape, scoring, signed_weights)
    sources = [Source("expert_ids", ids, IDS)]
    for name, given in (
        ("expert_weights", expert_weights),
        ("router_logits", router_logits),
        ("fingerprints", fingerprints),
        ("hidden_states", hidden_states),
        ("router_vectors", router_vectors),
    ):
        if given is not None:
            array = _take(name, given, "f")
            sources.append(Source(name, array, _float_dtype(name, array.dtype, dtype)))
    header = _header(sources, infos, fingerprint_kind, hidden_layers, model, extra)
    for source in sources:
        _check_shape(source, header, len(starts) - 1, len(ids))
    tables = _tables(starts, samples, tokens)
    place, name = destination(path), os.fspath(path)
    with new_folder(place, name, overwrite=overwrite) as folder:
        rules = Rules(infos, ids.shape[2])
        for source in sources:
            with progress_callback(progress, f"Writing {source.name}") as advance:
                _copy(folder, source, ids, rules, starts, advance)
        for file, table in tables.items():
            replace_file(folder / file, table_bytes(table, "parquet"))
        replace_file(folder / MANIFEST, serialise_manifest(header.manifest("complete", len(starts) - 1, len(ids))))
    from moefps.io.dump.reading import open_dump

    return open_dump(path)


@dataclass(frozen=True)
class Source:
    """An array of the caller's, and what it becomes."""

    name: str
    array: npt.NDArray[Any]
    dtype: np.dtype[Any]


def _take(name: str, given: npt.ArrayLike, kinds: str) -> npt.NDArray[Any]:
    """See an argument as a 3-D array, without a copy where it is one."""
    accepted = "integers" if "i" in kinds else "float16, float32, or float64 with dtype="
    try:
        array: npt.NDArray[Any] = np.asarray(given)
    except ValueError:
        raise ShapeError(f"{name}: rows of different lengths; accepted: an array {LAYOUTS[name]}") from None
    if isinstance(given, np.ma.MaskedArray):
        raise DtypeError(f"{name}: a masked array; accepted: plain arrays, with -1 for an empty slot")
    if array.ndim != 3:
        raise ShapeError(f"{name}: {array.ndim} dimensions {array.shape}; accepted: 3, {LAYOUTS[name]}")
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        raise DtypeError(f"{name}: dtype {array.dtype}; accepted: {accepted}")
    return array


def _float_dtype(name: str, found: np.dtype[Any], asked: npt.DTypeLike | None) -> np.dtype[Any]:
    """Give the dtype that an array of floats is kept in."""
    if asked is not None and np.dtype(asked) not in {HALF, SINGLE}:
        raise DtypeError(f"dtype: {np.dtype(asked)}; accepted: float16, float32")
    if name == "fingerprints":
        if found.newbyteorder("=") != SINGLE:
            raise DtypeError(f"fingerprints: dtype {found}; accepted: float32")
        return SINGLE
    if asked is not None:
        return np.dtype(asked)
    if found.newbyteorder("=") not in {HALF, SINGLE}:
        raise DtypeError(f"{name}: dtype {found}; accepted: float16, float32, or dtype='float32' to convert it")
    return found.newbyteorder("=")


def _check_offsets(offsets: npt.ArrayLike, n_tokens: int) -> IndexArray:
    found = np.asarray(offsets)
    if found.ndim != 1 or not len(found):
        raise ShapeError(f"offsets: shape {found.shape}; accepted: [N + 1], from 0 to the number of tokens")
    if found.dtype.kind not in "iu":
        raise DtypeError(f"offsets: dtype {found.dtype}; accepted: integers")
    if int(found[0]) != 0 or int(found[-1]) != n_tokens:
        raise DataError(
            f"offsets: from {found[0]} to {found[-1]}; accepted: from 0 to {n_tokens}, the number of tokens"
        )
    falls = found[1:] < found[:-1]
    if falls.any():
        i = int(np.argmax(falls))
        raise DataError(f"offsets: {found[i + 1]} after {found[i]} at [{i + 1}]; accepted: numbers that never fall")
    return found.astype(np.int64)


def _check_layers(
    layers: Sequence[LayerInfo] | None,
    n_experts: int | Sequence[int] | None,
    shape: tuple[int, ...],
    scoring: str | None,
    signed_weights: bool | None,
) -> tuple[LayerInfo, ...]:
    """Give what is known of each layer, from `layers` or from the other arguments."""
    n_layers, top_k = shape[1], shape[2]
    if top_k < 1 or n_layers < 1:
        raise ShapeError(f"expert_ids: shape {shape}; accepted: [T, L, k] with at least one layer and one slot")
    widths = _check_n_experts(n_experts, n_layers)
    if layers is None:
        if widths is None:
            raise ArgumentError("n_experts: missing; accepted: the number of experts, or one for each layer")
        return tuple(
            LayerInfo(
                index=index,
                path=f"layers.{index}",
                layer=index,
                n_experts=width,
                top_k=top_k,
                scoring=scoring or "other",
                signed_weights=bool(signed_weights),
            )
            for index, width in enumerate(widths)
        )
    infos = tuple(layers)
    if len(infos) != n_layers:
        raise ShapeError(f"layers: {len(infos)}; accepted: one for each of the {n_layers} layers of expert_ids")
    if max(info.top_k for info in infos) != top_k:
        raise ShapeError(f"layers: no layer has top_k {top_k}, the slots of expert_ids")
    if widths is not None and widths != [info.n_experts for info in infos]:
        raise ArgumentError("n_experts: not what the layers say; accepted: leave it out, or the same numbers")
    if scoring is not None:
        infos = tuple(replace(info, scoring=scoring) for info in infos)
    if signed_weights is not None:
        infos = tuple(replace(info, signed_weights=bool(signed_weights)) for info in infos)
    return infos


def _check_n_experts(n_experts: int | Sequence[int] | None, n_layers: int) -> list[int] | None:
    if n_experts is None:
        return None
    found = np.asarray(n_experts)
    if found.dtype.kind not in "iu":
        raise DtypeError(f"n_experts: {n_experts!r}; accepted: an integer, or one for each layer")
    if found.ndim > 1 or (found.ndim == 1 and len(found) != n_layers):
        raise ShapeError(f"n_experts: shape {found.shape}; accepted: one integer, or one for each of {n_layers} layers")
    if found.min() < 1 or found.max() > MOST_EXPERTS:
        wrong = found.min() if found.min() < 1 else found.max()
        raise ArgumentError(f"n_experts: {wrong}; accepted: 1 to {MOST_EXPERTS:,}")
    widths: list[int] = np.broadcast_to(found, n_layers).tolist()
    return widths


def _header(
    sources: Sequence[Source],
    layers: tuple[LayerInfo, ...],
    fingerprint_kind: str | None,
    hidden_layers: Sequence[int] | None,
    model: Mapping[str, Any] | None,
    extra: Mapping[str, Any] | None,
) -> DumpHeader:
    arrays = {source.name: source for source in sources}
    if ("fingerprints" in arrays) != (fingerprint_kind is not None):
        raise ArgumentError("fingerprint_kind: given without fingerprints, or they without it; accepted: both, neither")
    if ("hidden_states" in arrays) != (hidden_layers is not None):
        raise ArgumentError("hidden_layers: given without hidden_states, or they without it; accepted: both, neither")
    header = DumpHeader(
        layers=layers,
        arrays={name: source.dtype for name, source in arrays.items()},
        fingerprint_kind=fingerprint_kind,
        hidden_layers=None if hidden_layers is None else tuple(int(layer) for layer in hidden_layers),
        hidden_size=int(arrays["hidden_states"].array.shape[2]) if "hidden_states" in arrays else None,
        model=model or {},
        extra=extra or {},
    )
    header.check()
    return header


def _check_shape(source: Source, header: DumpHeader, n_samples: int, n_tokens: int) -> None:
    expected = header.array_shape(source.name, n_samples, n_tokens)
    found = source.array.shape
    if any(want not in {None, size} for want, size in zip(expected, found, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ShapeError(f"{source.name}: shape {found}; accepted: {LAYOUTS[source.name]} = [{wanted}]")


def _tables(
    starts: IndexArray,
    samples: pl.DataFrame | Mapping[str, Any] | None,
    tokens: pl.DataFrame | Mapping[str, Any] | None,
) -> dict[str, pl.DataFrame]:
    own = None if samples is None else as_frame("samples", samples, len(starts) - 1)
    tables = {SAMPLES: sample_table(starts, own)}
    if tokens is not None:
        tables[TOKENS] = token_table(starts, as_frame("tokens", tokens, int(starts[-1])))
    return tables


def _copy(
    folder: Path,
    source: Source,
    ids: npt.NDArray[Any],
    rules: Rules,
    starts: IndexArray,
    advance: ProgressCallback | None,
) -> None:
    """Write one array in pieces, converted and checked."""
    array, name = source.array, source.name
    rows = max(1, _CHUNK_ENTRIES // max(1, array[:1].size))
    try:
        file = BlockFile(folder / f"{name}.npy", array.shape, source.dtype, create=True)
        try:
            for first in range(0, len(array), rows):
                piece = array[first : first + rows]
                kept = _check_piece(source, piece, ids[first : first + rows], rules, first, starts)
                file.write_rows(first, kept)
                if advance is not None:
                    advance(min(first + rows, len(array)), len(array))
            file.sync()
        finally:
            file.close()
    except OSError as error:
        raise error if isinstance(error, FileError) else file_error(folder, error) from error


def _check_piece(
    source: Source, piece: npt.NDArray[Any], ids: npt.NDArray[Any], rules: Rules, first: int, starts: IndexArray
) -> npt.NDArray[Any]:
    """Give a piece in the format's dtype, if its values are accepted."""
    name = source.name
    if name == "expert_ids":
        # Before the cast, where an id past int16 would wrap around.
        found = rules.expert_ids(piece)
        if found is not None:
            raise DataError(value_message(name, name, piece, found, first, starts))
        return np.ascontiguousarray(piece, dtype=source.dtype)
    with np.errstate(over="ignore"):
        # A number that float16 cannot hold becomes infinite, and is refused below.
        kept = np.ascontiguousarray(piece, dtype=source.dtype)
    if name == "expert_weights":
        found = rules.expert_weights(kept, lambda: ids)
    elif name == "router_logits":
        found = rules.router_logits(kept, lambda: ids)
    elif name == "fingerprints":
        found = rules.fingerprints(kept)
    else:
        found = None
        if kept.dtype.itemsize < piece.dtype.itemsize and np.isinf(kept).any() and not np.isinf(piece).any():
            raise DataError(f"{name}: a number is too large for {kept.dtype}; accepted: dtype='float32'")
    if found is not None:
        raise DataError(value_message(name, name, piece, found, first, starts))
    return kept
